"""A sweep hands DVC what a job changes, and refuses keys that params.yaml does not have."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser

from leanface.errors import ConfigError, LeanFaceError
from leanface.sweep import app as sweep
from leanface.sweep.plan import Plan, check_trials
from leanface.sweep.trials import Trial, save_trial, sweep_folder, typical_seconds

BASE: dict[str, Any] = {"scale": "laptop", "prune": {"ratio": 0.5, "importance": "magnitude"}}

SWEEPS = sorted((Path(__file__).parents[3] / "conf/sweep").glob("*.yaml"))


def test_an_unchanged_job_has_no_overrides() -> None:
    assert list(sweep.changes(BASE, BASE)) == []


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"prune": {"ratio": 0.3}}, ["prune.ratio=0.3"]),
        ({"scale": "tiny"}, ['scale="tiny"']),
        ({"data": {"train_count": 500}}, ["+data.train_count=500"]),
        ({"prune": {"round_to": 8}}, ["+prune.round_to=8"]),
        ({"prune": {"importance": None}}, ["prune.importance=null"]),
        ({"benchmark": {"batches": [1, 4]}}, ["+benchmark.batches=[1, 4]"]),
    ],
)
def test_overrides_name_just_what_differs(tree: dict[str, Any], expected: list[str]) -> None:
    assert list(sweep.changes(BASE, tree)) == expected


def test_overrides_turn_the_base_into_the_tree() -> None:
    tree = {"scale": "tiny", "prune": {"ratio": 0.3, "importance": "magnitude", "compensate": False}}
    rebuilt = yaml.safe_load(yaml.safe_dump(BASE))
    for override in sweep.changes(BASE, tree):
        key, _, value = override.removeprefix("+").partition("=")
        section = rebuilt
        *parents, last = key.split(".")
        for parent in parents:
            section = section[parent]
        section[last] = yaml.safe_load(value)
    assert rebuilt == tree


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("prune.ratoi=0.3,0.5", r"prune\.ratoi is not a key of params\.yaml\. Did you mean prune\.ratio"),
        ("prune/importance=taylor", r"Did you mean prune\.importance"),
        ("data.train_count=500", r"\+data\.train_count=500 adds it"),
        ("~seed", "cannot remove a key"),
        ("scale=tniy,tiny", r"(?s)1 of 2 trials.*scale=tniy:.*Did you mean tiny\?"),
        ("prune.importance=hesian", r"'hesian' names no file of conf/prune/importance/\. Did you mean hessian\?"),
        ("prune.ratio=0.3,1.5,1.7", r"(?s)2 of 3 trials.*prune\.ratio=1\.5:.*0\.95 \(got 1\.5\).*1\.7"),
        ("+prune.ratoi=0.3", r"unknown key prune\.ratoi\. Did you mean ratio"),
        ("++distill.optimizer.stepz=3", r"unknown key distill\.optimizer\.stepz\. Did you mean steps"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_trial_that_is_not_valid_is_refused_before_anything_runs(
    project: Path, override: str, says: str, dry: list[str]
) -> None:
    with pytest.raises(ConfigError, match=says):
        sweep.main(["-m", override, *dry])
    assert not (project / "multirun").exists()
    assert not (project / ".cache").exists()


@pytest.mark.parametrize(("low", "says"), [("0.2", None), ("-1", r"greater than or equal to 0 \(got -1")])
def test_the_ends_of_what_a_search_may_choose_are_validated(project: Path, low: str, says: str | None) -> None:
    overrides = ["prune.ratio=interval(LOW, 0.8)".replace("LOW", low), "distill.temperature=tag(log, interval(1, 8))"]
    params: dict[str, Any] = yaml.safe_load(Path("params.yaml").read_text())
    plan = Plan("x", {}, OverridesParser.create().parse_overrides(overrides), trials=30, threads=None)
    with nullcontext() if says is None else pytest.raises(ConfigError, match=says):
        check_trials(plan, params)


def test_a_sweep_that_is_not_kept_is_answered_with_those_that_are(project: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean pareto"):
        sweep.main(["--config-name", "parto", "--dry-run"])


def test_times_of_another_scale_are_no_estimate(project: Path) -> None:
    for scale, seconds in (("tiny", 1.0), ("laptop", 300.0), (None, 5.0)):
        folder = sweep_folder(f"of-{scale}")
        save_trial(Trial(f"of-{scale}-1", [], {}, "finished", stages={"distill": seconds}, scale=scale), folder)
    assert typical_seconds("tiny") == {"distill": 1.0}
    assert typical_seconds("laptop") == {"distill": 300.0}
    assert typical_seconds("gpu") == {}


def test_a_sweep_elsewhere_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"params\.yaml is missing"):
        sweep.main(["-m", "prune.ratio=0.3,0.5"])


def test_a_job_that_dvc_refuses_raises_what_dvc_said(project: Path) -> None:
    with pytest.raises(LeanFaceError, match="not inside of a DVC repository"):
        sweep.main(["prune.ratio=0.3"])


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_ready_made_sweep_varies_keys_of_params(path: Path, root: Path) -> None:
    tree = yaml.safe_load((root / "params.yaml").read_text())
    ConfigStore.instance().store("params", {**tree, "objectives": list(sweep.OBJECTIVES), "name": "x"})
    with initialize_config_dir(str(path.parent), version_base="1.3"):
        job = compose(path.stem, return_hydra_config=True)
        for key, values in job.hydra.sweeper.params.items():
            override = OverridesParser.create().parse_override(f"{key}={values}")
            value: Any = override.value()
            for text in override.sweep_string_iterator() if override.is_discrete_sweep() else (value.start, value.end):
                compose(path.stem, [f"{key}={text}"])
        assert job.hydra.mode.name == "MULTIRUN"
        assert len(job.hydra.sweeper.params) >= 1
