"""What every pruning criterion must do, whoever writes it; a new line in the table is tested on arrival."""

import math
from pathlib import Path

import pytest
import torch
import yaml

from leanface import paths
from leanface.config import Importance
from leanface.errors import ConfigError
from leanface.face.morphable_model import MorphableModel
from leanface.networks.resnet import FaceReconstructionNet
from leanface.networks.widths import widths_of
from leanface.pruning.gradients import Calibration
from leanface.pruning.groups import ChannelGraph
from leanface.pruning.importance import IMPORTANCES, build_importance
from leanface.pruning.prune import PruneResult, Scorer, prune_channels
from leanface.tasks.face.task import FaceTask
from tests.conftest import SmoothImages

FOLDER = Path(__file__).parents[2] / paths.CONF / "prune" / "importance"


def shipped(name: str) -> Importance:
    """A criterion with the options of its YAML file."""
    return Importance.model_validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))


@pytest.fixture
def calibration(model: MorphableModel, smooth_images: SmoothImages) -> Calibration:
    return Calibration(smooth_images(2, 4), FaceTask(model))


def halved(network: FaceReconstructionNet, name: str, calibration: Calibration, seed: int) -> PruneResult:
    ratios, criterion = dict.fromkeys(ChannelGraph(network).groups(), 0.5), build_importance(shipped(name))
    return prune_channels(network, ratios, criterion, round_to=4, seed=seed, calibration=calibration)


def test_table_and_files_name_the_same_criteria() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(IMPORTANCES)


@pytest.mark.parametrize("name", IMPORTANCES)
def test_file_configures_the_criterion_that_it_is_named_after(name: str) -> None:
    assert shipped(name).name == name
    assert callable(build_importance(shipped(name)))


@pytest.mark.parametrize("name", IMPORTANCES)
def test_prunes_the_share_that_was_asked_for(
    smooth_images: SmoothImages, calibration: Calibration, name: str, small_network: FaceReconstructionNet
) -> None:
    network, kept = halved(small_network, name, calibration, seed=0)
    for conv, (_, outputs) in widths_of(small_network).items():
        assert len(kept[conv]) == (outputs // 2 // 4 * 4 if conv.startswith("backbone.") else outputs)
        assert kept[conv] == sorted(set(kept[conv]))
    with torch.no_grad():
        assert all(math.isfinite(value) for value in network(smooth_images(2, 0)).flatten().tolist())


@pytest.mark.parametrize("name", IMPORTANCES)
def test_same_seed_same_choice(calibration: Calibration, name: str, small_network: FaceReconstructionNet) -> None:
    first, second = (halved(small_network, name, calibration, seed=7).kept for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", IMPORTANCES)
def test_scores_are_finite_and_not_negative(
    calibration: Calibration, name: str, small_network: FaceReconstructionNet
) -> None:
    scorer = Scorer(small_network, build_importance(shipped(name)), 0, calibration)
    assert {group: len(score) for group, score in scorer.scores.items()} == scorer.channels
    assert all(bool((score >= 0).all() and score.isfinite().all()) for score in scorer.scores.values())


@pytest.mark.parametrize("name", sorted(set(IMPORTANCES) - {"random"}))
def test_a_dead_channel_is_worth_least(
    calibration: Calibration, name: str, small_network: FaceReconstructionNet
) -> None:
    """Dead: its filter, its batch norm and what reads it are zero. There are two, as FPGM keeps what is unlike all."""
    group, dead = "backbone.layer2.1.conv1", [2, 5]
    with torch.no_grad():
        for layer in (group, "backbone.layer2.1.bn1"):
            for parameter in small_network.get_submodule(layer).parameters():
                parameter[dead] = 0.0
        small_network.get_submodule("backbone.layer2.1.conv2").get_parameter("weight")[:, dead] = 0.0
    scorer = Scorer(small_network, build_importance(shipped(name)), 0, calibration)
    score = scorer.scores[group]
    alive = [channel for channel in range(len(score)) if channel not in dead]
    assert float(score[dead].max()) <= float(score[alive].min())
    assert float(score[dead].max()) < float(score.mean())


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
