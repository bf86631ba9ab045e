"""A whole search of the digits' network, really exported, timed, and re-fitted; and what it refuses."""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from leanface import bundle, paths
from leanface.config import Config, load_config
from leanface.errors import BackendError, ConfigError
from leanface.networks.widths import widths_of
from leanface.pruning.plan import read_architecture
from leanface.runner import run_stage
from leanface.search.latency import Deployment, latency_model
from leanface.search.record import SearchRecord
from leanface.search.search import Searcher, Settings, UnreachableError
from leanface.search.space import Space
from leanface.task import Track, load_task

ROOT = Path(__file__).parents[3]
SEARCH = {"threads": 1, "networks": 6, "cases": 5, "candidates": 2}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory):
    """A project of digits at scale tiny whose original is there; as the working directory."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "conf").symlink_to(ROOT / "conf")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.delenv("DVC_EXP_NAME", raising=False)
        configure({})
        for stage in ("prepare", "teacher"):
            run_stage(stage)
        yield folder


def configure(targets: dict[str, float | str], **changes: object) -> Config:
    tree = yaml.safe_load((ROOT / paths.PARAMS).read_text()) | {"task": "digits", "scale": "tiny"}
    paths.PARAMS.write_text(yaml.safe_dump(tree | {"search": {**SEARCH, "targets": targets, **changes}}))
    run_stage("configure")
    return load_config(paths.CONFIG)


@pytest.fixture(scope="module")
def found(project: Path) -> SearchRecord:
    configure({"latency_ms": 1000, "images_per_second": 1, "size_mb": 0.4})
    run_stage("search")
    return SearchRecord.model_validate_json(paths.SEARCH.read_bytes())


def test_without_targets_nothing_is_searched(project: Path) -> None:
    configure({})
    run_stage("search")
    assert read_architecture(paths.ARCHITECTURE) is None
    assert not paths.SEARCH.exists()


def test_the_chosen_network_meets_its_targets(found: SearchRecord) -> None:
    assert found.answer is None
    assert found.costs["size_mb"] <= 0.4 * 1.01
    assert found.choice.size_mb < 1.1 * 0.4
    assert found.choice.errors["teacher_kl"] == min(one.errors["teacher_kl"] for one in found.candidates)
    assert {one.name for one in found.candidates} == {"searched 1", "uniform"}
    assert len(found.timed) == SEARCH["networks"]
    assert all(seconds >= 0 for seconds in found.seconds.values())
    assert (paths.SEARCH_REPORT / "search.png").stat().st_size > 10_000


def test_the_candidates_are_runs_for_mlflow(found: SearchRecord) -> None:
    records = [json.loads(file.read_text()) for file in (paths.CACHE / "mlflow-outbox").rglob("*.json")]
    names = {record["name"] for record in records if "name" in record}
    assert {"search", "search: uniform", "search: searched 1"} <= names


def test_stage_prune_leaves_what_was_chosen(found: SearchRecord) -> None:
    run_stage("prune")
    network, spec = bundle.load_network(paths.PRUNED)
    architecture = found.choice.architecture
    widths = widths_of(network)
    assert all(widths[name][1] == count for name, count in architecture.counts.items() if name in widths)
    assert not any(name.startswith(tuple(f"{block}." for block in architecture.dropped)) for name in spec.widths) or (
        architecture.dropped == ()
    )


def test_a_search_that_was_stopped_goes_on_and_no_is_an_answer(found: SearchRecord) -> None:
    times, cases = paths.SEARCH_CACHE / "openvino_int8.json", paths.SEARCH_CACHE / "cases.json"
    timings, known = json.loads(times.read_text()), json.loads(cases.read_text())["known"]
    times.write_text(json.dumps(timings | {"rows": timings["rows"][:4]}))
    configure({"size_mb": 0.4, "kl": 1e-9})
    with pytest.raises(
        UnreachableError,
        match=r"Cross-entropy to ground truth is .* nats.*was asked.*\nThe nearest network that was found: .* MB",
    ):
        run_stage("search")
    assert json.loads(times.read_text())["rows"][:4] == timings["rows"][:4]
    assert len(json.loads(times.read_text())["rows"]) == SEARCH["networks"]
    assert json.loads(cases.read_text())["known"].items() >= known.items()
    assert SearchRecord.model_validate_json(paths.SEARCH.read_bytes()).answer is not None
    configure({"latency_ms": 1e-6})
    with pytest.raises(UnreachableError, match="no network is so cheap"):
        run_stage("search")


def test_a_search_that_is_stopped_repeats_nothing(project: Path) -> None:
    config = configure({"size_mb": 0.3}, cases=3, faces=4)  # which no other test asks for
    teacher, _ = bundle.load_network(paths.TEACHER)
    settings = Settings(config.search, config.prune, config.quantize, config.machine, config.seed)
    task, cases = load_task(config.task, config.data), paths.SEARCH_CACHE / "cases.json"

    def stop(name: str, parameters: Mapping[str, object], metrics: Mapping[str, float]) -> None:
        raise KeyboardInterrupt

    def searcher(track: Track | None) -> Searcher:
        return Searcher(teacher, task, "digits", bundle.digest(paths.TEACHER), settings, track)

    with pytest.raises(KeyboardInterrupt):
        searcher(stop).run()
    before = json.loads(cases.read_text())
    assert sum(name.startswith("whole") for name in before["known"]) == 1
    record = searcher(None).run()
    after = json.loads(cases.read_text())
    for kind in ("known", "seconds"):
        assert after[kind].items() > before[kind].items()
    written = cases.stat().st_mtime_ns
    start = time.monotonic()
    repeated = searcher(None).run()
    wall = time.monotonic() - start
    assert repeated.model_copy(update={"seconds": {}}) == record.model_copy(update={"seconds": {}})
    assert sum(repeated.seconds.values()) <= sum(record.seconds.values()) + wall  # what was taken over counts once
    assert cases.stat().st_mtime_ns == written


def test_times_of_another_machine_are_taken_again(
    project: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, file = configure({}, runtime="torch", precision="fp32"), tmp_path / "times.json"
    deployment = Deployment(Space(bundle.load_network(paths.TEACHER)[0], 32), "digits", config.search)

    def reference_ms() -> float:
        return latency_model(deployment, "original", file, lambda done, of: None).reference_ms

    reference_ms()
    timings = json.loads(file.read_text())
    timings["rows"] = [row | {"reference_ms": 1e6} for row in timings["rows"]]
    file.write_text(json.dumps(timings))
    assert reference_ms() == 1e6
    timings["machine"]["device"]["cpu"] = "another one"
    file.write_text(json.dumps(timings))
    with caplog.at_level(logging.WARNING):
        assert reference_ms() < 1e5
    assert "is of another device: the networks are timed again" in caplog.text


@pytest.mark.parametrize(
    ("targets", "changes", "error", "message"),
    [
        ({"vertex_mm": 1}, {}, ConfigError, "there is no measure vertex_mm.* Valid: latency_ms"),
        ({"latency_ms": "1 s"}, {}, ConfigError, "latency_ms is in ms"),
        ({"latency_ms": 1}, {"runtime": "abacus"}, ConfigError, "there is no runtime 'abacus'; use one of triton_int8"),
        ({"latency_ms": 1}, {"runtime": "torch"}, ConfigError, "torch does not run int8 networks"),
        ({"latency_ms": 1}, {"runtime": "tensorrt"}, ConfigError, "tensorrt does not run int8 networks"),
        ({"latency_ms": 1}, {"runtime": "triton_int8"}, BackendError, "GPU"),
    ],
)
def test_what_cannot_be_searched_for_is_refused(
    project: Path, targets: dict[str, float | str], changes: dict[str, object], error: type[Exception], message: str
) -> None:
    def search() -> None:
        configure(targets, **changes)
        run_stage("search")

    with pytest.raises(error, match=message):
        search()
