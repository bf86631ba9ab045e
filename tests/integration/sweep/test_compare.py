"""Which trials are not dominated, which one is recommended, and what becomes of an experiment that is promoted."""

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from rich.console import Console

from leanface import catalog, paths, tracking
from leanface.errors import ArtifactError, GateError, LeanFaceError
from leanface.sweep.app import main
from leanface.sweep.compare import compare, promote
from leanface.sweep.comparison.page import print_table, write_page
from leanface.sweep.comparison.trials import TrialResult, front, recommended, trial_result
from leanface.sweep.experiments import cache_folder, cached_file, read_text, read_texts
from leanface.sweep.trials import read_trials

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


def row(
    name: str,
    error: float,
    speedup: float,
    passed: bool = True,
    cpu: str = "x",
    scale: str = "laptop",
    interval: tuple[float, float] | None = None,
    **params: Any,
) -> TrialResult:
    """A trial whose network takes 20 ms over its speed-up."""
    known = {"truth_vertex_mm": error, "teacher_vertex_mm": error, "latency_ms": 20 / speedup, "speedup": speedup}
    numbers = known | {"size_mb": 5.0, "macs": None, "ssim": 0.99}
    intervals = {"speedup": interval or (0.95 * speedup, 1.05 * speedup)}
    gate = {"limit": 1, "value": 0.5, "interval": None, "passed": passed, "bound": "max"}
    summary = {
        "scale": scale,
        "image_size": 112,
        "device": {"cpu": cpu},
        "variants": {catalog.DEPLOYED: {"runtime": "openvino", "intervals": intervals} | numbers},
        "gates": {"mse": gate},
        "not_measured": {},
        "not_run": [],
    }
    return trial_result(name, params, summary)


ROWS = [row("a", 1.0, 2.0), row("b", 2.0, 6.0), row("c", 2.0, 5.0), row("d", 3.0, 20.0, passed=False)]


def text_of(trials: list[TrialResult]) -> str:
    text = io.StringIO()
    print_table(trials, Console(file=text, width=160))
    return text.getvalue()


def test_the_front_holds_what_nothing_beats() -> None:
    assert front(ROWS, "truth_vertex_mm", "latency_ms") == {"a", "b", "d"}
    assert front(ROWS, "truth_vertex_mm", "macs") == set()


def test_the_fastest_that_passes_is_recommended_among_those_of_one_machine() -> None:
    assert recommended(ROWS) == ROWS[1]
    assert recommended([*ROWS, row("e", 1.0, 99.0, cpu="other")]) == ROWS[1]
    assert recommended([ROWS[3]]) is None


def test_the_fastest_is_so_relative_to_its_own_baseline() -> None:
    """The other trial ran while the machine was faster, and so was its original."""
    slow, fast = row("slow machine", 2.0, 8.0), row("fast machine", 2.0, 6.0)
    hurried = dict(fast.deployed.measures) | {"latency_ms": 0.5}
    deployed = type(fast.deployed).model_validate(
        {"runtime": "openvino", "intervals": fast.deployed.intervals} | hurried
    )
    summary = fast.summary.model_copy(update={"variants": {catalog.DEPLOYED: deployed}})
    assert recommended([slow, TrialResult("fast machine", {}, summary)]).name == "slow machine"


def test_a_lucky_measurement_is_not_recommended() -> None:
    assert recommended([*ROWS, row("lucky", 2.0, 9.0, interval=(4.0, 14.0))]) == ROWS[1]


def test_a_speedup_whose_baseline_varied_is_said_to_be_uncertain() -> None:
    assert "too wide" not in text_of(ROWS)
    assert "1 of 5 speed-ups have a 95 % interval that is too wide" in text_of(
        [*ROWS, row("e", 1.0, 253.0, interval=(80.0, 300.0))]
    )


def test_trials_that_only_test_the_pipeline_say_that_their_numbers_mean_nothing(tmp_path: Path) -> None:
    trials = [row("a", 1.0, 2.0, scale="tiny"), row("b", 2.0, 6.0, scale="tiny")]
    write_page("tiny", trials, {}, tmp_path / "page.html")
    for text in (text_of(trials), (tmp_path / "page.html").read_text()):
        assert text.count("its numbers mean nothing") == 1
    assert "mean nothing" not in text_of(ROWS)


def test_table_and_page_of_200_trials(tmp_path: Path) -> None:
    rows = [
        row(
            f"t{index}",
            1 + index % 7,
            20 / (1 + index % 11),
            **{"prune.ratio": index % 5, "distill.temperature": index % 8},
        )
        for index in range(200)
    ]
    rows.append(TrialResult("broken", {"prune.ratio": 9, "distill.temperature": 1}, None, "<loss> is NaN"))
    assert "leanface promote t0" in text_of(rows)
    assert "and 150 more, which are on the page" in text_of(rows)
    page = tmp_path / "page.html"
    write_page("many", rows, {}, page)
    html = page.read_text()
    assert html.count("<tr ") == 200
    assert "&lt;loss&gt; is NaN" in html
    assert html.count("data:image/png") == 2
    assert "http://" not in html
    assert list(tmp_path.iterdir()) == [page]


@pytest.mark.parametrize("width", [80, 120])
def test_no_terminal_cuts_a_number_or_a_name(width: int) -> None:
    rows = [
        row(f"grid-000000{n}", 1.234, 20 / (0.8765 + n), n > 1, **{"prune.ratio": n, "distill.temperature": n})
        for n in range(3)
    ]
    text = io.StringIO()
    print_table(rows, Console(file=text, width=width))
    for shown in ("1.23", "0.9900", "22.8", "10.7", "failed", "grid-0000000", "grid-0000001", "grid-0000002"):
        assert shown in text.getvalue()


def test_a_sweep_is_compared_and_what_fails_its_gates_is_not_promoted(toy: Path) -> None:
    with pytest.raises(ArtifactError, match="known: none"):
        compare([], "grid", Console(file=io.StringIO()))
    with pytest.raises(LeanFaceError, match="trials failed"):
        main(["-m", "prune.ratio=0.3,0.8", "distill.temperature=1,13", "name=grid"])
    text = io.StringIO()
    page = compare([], "grid", Console(file=text, width=160))
    names = {float(line.split()[1]): line.split()[0] for line in text.getvalue().splitlines() if " 1 " in line}
    assert page.is_file()
    assert "loss is NaN" in page.read_text()
    best = text.getvalue().split("leanface promote ")[1].split()[0]
    assert best == names[0.3]
    with pytest.raises(GateError, match="mse"):
        promote(names[0.8])
    assert "ratio: 0.5" in Path("params.yaml").read_text()
    with pytest.raises(ArtifactError, match="no experiment 'nothing'"):
        promote("nothing")


def test_an_output_is_found_in_the_cache_as_the_experiment_left_it(toy: Path) -> None:
    pipeline = yaml.safe_load(Path("dvc.yaml").read_text())
    command = "mkdir -p pictures/int8 && cp distill.txt pictures/int8/faces.png"
    pipeline["stages"]["pictures"] = {"cmd": command, "deps": ["distill.txt"], "outs": ["pictures"]}
    Path("dvc.yaml").write_text(yaml.safe_dump(pipeline))
    main(["-m", "prune.ratio=0.3,0.4", "name=two"])
    cache = cache_folder()
    for trial in read_trials("two"):
        lock, expected = read_text(Path("dvc.lock"), trial.name), f"{trial.varied['prune.ratio']} 4"
        for output in ("distill.txt", "pictures/int8/faces.png"):
            file = cached_file(Path(output), lock, cache)
            assert file is not None
            assert file.read_text() == expected
            assert cached_file(Path(output), lock, toy / "another") is None
        for output in ("pictures/int8/photos.png", "nothing/faces.png"):
            assert cached_file(Path(output), lock, cache) is None


def test_the_page_links_each_trial_s_report_by_its_parameters(toy: Path) -> None:
    pipeline = yaml.safe_load(Path("dvc.yaml").read_text())
    command = "cp distill.txt reports/report.html"
    pipeline["stages"]["page"] = {"cmd": command, "deps": ["distill.txt"], "outs": ["reports/report.html"]}
    Path("dvc.yaml").write_text(yaml.safe_dump(pipeline))
    main(["-m", "prune.ratio=0.3,0.4", "name=two"])
    for _ in range(2):  # the second time the links are there
        page = compare([], "two", Console(file=io.StringIO()))
    html = page.read_text()
    for trial in read_trials("two"):
        ratio = str(trial.varied["prune.ratio"])
        assert f'<a href="two/{trial.name}.html">{ratio}</a>' in html
        assert (page.parent / f"two/{trial.name}.html").read_text() == f"{ratio} 4"
        assert f"leanface promote {trial.name}" in html
    read = read_texts(paths.SUMMARY, ["nothing", *(trial.name for trial in read_trials("two"))])
    assert set(read) == {trial.name for trial in read_trials("two")}
    assert all(read_text(paths.SUMMARY, name) == text for name, text in read.items())


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # MLflow's
def test_an_experiment_that_passes_is_applied_and_becomes_the_champion(
    toy: Path, exported: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    main(["-m", "prune.ratio=0.3", "name=one"])
    (trial,) = read_trials("one")
    network = paths.onnx_path(catalog.DEPLOYED)
    network.parent.mkdir(parents=True)
    shutil.copy(exported.int8, network)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert promote(trial.name) == ["mse: 0.3 (95 % interval 0.3 to 0.3, all of it at most 1), passed"]
    assert "ratio: 0.3" in paths.PARAMS.read_text()
    client = MlflowClient(store)
    champion = client.get_model_version_by_alias(tracking.MODEL, tracking.CHAMPION)
    assert client.get_run(champion.run_id).data.tags[tracking.PROMOTED_TAG] == trial.name


def test_a_trial_that_another_sweep_took_over_is_listed_once(toy: Path) -> None:
    for name in ("one", "two"):
        main(["-m", "prune.ratio=0.3", f"name={name}"])
    text = io.StringIO()
    compare([], None, Console(file=text, width=160))
    assert sum(line.startswith(("one-", "two-")) for line in text.getvalue().splitlines()) == 1
