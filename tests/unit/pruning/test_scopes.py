import pytest
import torch

from leanface.errors import ConfigError
from leanface.networks.resnet import FaceReconstructionNet
from leanface.pruning.groups import ChannelGraph, ChannelGroup
from leanface.pruning.importance.magnitude import Magnitude
from leanface.pruning.prune import Scorer
from leanface.pruning.scopes import SCOPES, Scores, largest_ratio, local_counts, ranked_counts


@pytest.fixture
def scorer(small_network: FaceReconstructionNet) -> Scorer:
    return Scorer(small_network, Magnitude(), seed=0, calibration=None)


def two_groups(network: FaceReconstructionNet) -> tuple[dict[str, ChannelGroup], Scores]:
    """Two groups of 16 channels; all of the second one's are worth more."""
    names = ["backbone.layer1.0.conv1", "backbone.layer1.0.conv2"]
    groups = {name: group for name, group in ChannelGraph(network).groups().items() if name in names}
    return groups, {name: torch.arange(16.0) + 100 * index for index, name in enumerate(names)}


def test_local_takes_the_same_share_of_all(scorer: Scorer) -> None:
    counts = ranked_counts(scorer.groups, scorer.scores, "local", 0.25, 4, 0.8)
    assert counts == {name: channels * 3 // 4 for name, channels in scorer.channels.items()}


def test_global_takes_the_least_of_all(small_network: FaceReconstructionNet) -> None:
    groups, scores = two_groups(small_network)
    assert list(ranked_counts(groups, scores, "global", 0.25, 1, 0.8).values()) == [8, 16]


def test_no_group_loses_more_than_max_ratio(small_network: FaceReconstructionNet) -> None:
    groups, scores = two_groups(small_network)
    assert list(ranked_counts(groups, scores, "global", 0.5, 1, 0.75).values()) == [4, 12]
    # 4.8 channels rounded up to a multiple of 4 stay.
    assert list(ranked_counts(groups, scores, "global", 0.5, 4, 0.7).values()) == [8, 8]


def test_isomorphic_ranks_like_with_like(scorer: Scorer) -> None:
    """A stream's channels do not compete with those inside of bottlenecks, whatever they score."""
    scores = {
        name: score * (1.0 if scorer.groups[name].inside_block else 1e-6) for name, score in scorer.scores.items()
    }
    counts = ranked_counts(scorer.groups, scores, "isomorphic", 0.5, 1, 0.9)
    inside = {name for name, group in scorer.groups.items() if group.inside_block}
    lost = sum(scorer.channels[name] - counts[name] for name in inside)
    assert lost == sum(scorer.channels[name] for name in inside) // 2
    everything = ranked_counts(scorer.groups, scores, "global", 0.5, 1, 0.9)
    assert sum(scorer.channels[name] - everything[name] for name in inside) < lost


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.62])
def test_share_multiples_and_no_empty_layer(scorer: Scorer, scope: str, ratio: float) -> None:
    counts = ranked_counts(scorer.groups, scorer.scores, scope, ratio, 4, 0.9)
    total = sum(scorer.channels.values())
    assert all(count % 4 == 0 and count >= 4 for count in counts.values())
    assert (1 - ratio) * total - 4 * len(counts) <= sum(counts.values()) <= (1 - ratio) * total + 1


@pytest.mark.parametrize("scope", SCOPES)
def test_largest_ratio_is_the_last_that_is_not_refused(scorer: Scorer, scope: str) -> None:
    limit = largest_ratio(scorer.groups, scorer.scores, scope, 8, 0.75)
    assert 0 < limit < 1
    ranked_counts(scorer.groups, scorer.scores, scope, limit, 8, 0.75)
    with pytest.raises(ConfigError, match=r"use a ratio of at\s+most 0\."):
        ranked_counts(scorer.groups, scorer.scores, scope, limit + 0.01, 8, 0.75)


@pytest.mark.parametrize("scope", SCOPES)
def test_ratio_zero_takes_nothing(scorer: Scorer, scope: str) -> None:
    assert ranked_counts(scorer.groups, scorer.scores, scope, 0.0, 24, 0.8) == scorer.channels


def test_what_is_left_is_rounded_down() -> None:
    assert local_counts({"a": 80, "b": 64, "c": 24}, {"a": 0.9, "b": 0.3, "c": 0.0}, 8) == {"a": 8, "b": 40, "c": 24}
