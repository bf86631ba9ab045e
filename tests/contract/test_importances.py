"""What every pruning criterion must do, whoever writes it; a new line in the table is tested on arrival."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from leanface import paths
from leanface.config import Importance, Prune
from leanface.errors import ConfigError
from leanface.networks.resnet import FaceReconstructionNet, widths_of
from leanface.pruning.importance import IMPORTANCES, build_importance
from leanface.pruning.prune import prune

SmoothImages = Callable[[int, int], Tensor]

FOLDER = Path(__file__).parents[2] / paths.CONF / "prune" / "importance"


def shipped(name: str) -> Importance:
    """A criterion with the options of its YAML file."""
    return Importance.model_validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))


def settings(importance: Importance) -> Prune:
    return Prune(ratio=0.5, importance=importance, round_to=4, compensate=False, calibration_count=1, ridge=1e-3)


def test_table_and_files_name_the_same_criteria() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(IMPORTANCES)


@pytest.mark.parametrize("name", IMPORTANCES)
def test_file_configures_the_criterion_that_it_is_named_after(name: str) -> None:
    assert shipped(name).name == name
    assert callable(build_importance(shipped(name)))


@pytest.mark.parametrize("name", IMPORTANCES)
def test_prunes_the_share_that_was_asked_for(
    smooth_images: SmoothImages, name: str, small_network: FaceReconstructionNet
) -> None:
    network, kept = prune(small_network, settings(shipped(name)), seed=0)
    for conv, (_, outputs) in widths_of(small_network).items():
        assert len(kept[conv]) == (outputs // 2 // 4 * 4 if conv.startswith("backbone.") else outputs)
        assert kept[conv] == sorted(set(kept[conv]))
    with torch.no_grad():
        assert all(math.isfinite(value) for value in network(smooth_images(2, 0)).flatten().tolist())


@pytest.mark.parametrize("name", IMPORTANCES)
def test_same_seed_same_choice(name: str, small_network: FaceReconstructionNet) -> None:
    first, second = (prune(small_network, settings(shipped(name)), seed=7).kept for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", IMPORTANCES)
def test_option_that_it_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} has no option temper.*{name}\.yaml"):
        build_importance(Importance(name=name, options={"temper": 1.0}))


def test_wrong_value_of_an_option_is_refused() -> None:
    with pytest.raises(ConfigError, match="p is 3, expected 1 or 2"):
        build_importance(Importance(name="magnitude", options={"p": 3}))


def test_unknown_criterion_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=", ".join(IMPORTANCES)):
        build_importance(Importance(name="magic", options={}))
