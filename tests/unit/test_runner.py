"""The runner hands a stage its sections and nothing else."""

import json

import pytest

from leanface import paths
from leanface.config import load_config
from leanface.errors import ArtifactError, ConfigError
from leanface.runner import run_stage, stage_sections


def test_sections_are_the_parameters_of_run() -> None:
    assert stage_sections("prune") == ["data", "prune", "seed", "task"]
    assert stage_sections("probe") == []
    assert "variant" not in stage_sections("export")
    assert "log" not in stage_sections("distill")


@pytest.mark.parametrize(("stage", "variant"), [("export", None), ("probe", "distilled_fp32")])
def test_a_variant_is_given_just_where_it_is_taken(project, stage: str, variant: str | None) -> None:
    with pytest.raises(ConfigError, match=f"stage {stage} takes"):
        run_stage(stage, variant)


def test_a_stage_without_its_configuration_says_how_to_get_it(project) -> None:
    with pytest.raises(ArtifactError, match="leanface stage configure"):
        run_stage("prune")


def test_configure_and_probe_run_and_probe_writes_the_same_bytes_again(project) -> None:
    run_stage("configure")
    assert load_config(paths.CONFIG).seed == 0
    run_stage("probe")
    first = paths.DEVICE.read_bytes()
    run_stage("probe")
    assert paths.DEVICE.read_bytes() == first
    device = json.loads(first)
    assert device["cores"] >= 1
    assert device["runtimes"]["torch"]
    assert not (project / ".cache").exists(), "nothing was measured, so nothing is recorded"
