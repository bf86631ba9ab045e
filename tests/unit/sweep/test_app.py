"""A sweep hands DVC what a job changes, and refuses keys that params.yaml does not have."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser

from leanface.errors import ConfigError, LeanFaceError
from leanface.sweep import app as sweep

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


def test_an_unknown_key_is_refused_before_anything_runs(project: Path) -> None:
    with pytest.raises(ConfigError, match=r"prune\.ratoi") as caught:
        sweep.main(["-m", "prune.ratoi=0.3,0.5"])
    assert "params.yaml" in str(caught.value)


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
