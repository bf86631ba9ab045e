"""Channels matter by the scale that their batch norm gives them."""

from torch_pruning.pruner.importance import BNScaleImportance


class BatchNormScale(BNScaleImportance):
    """Mean |gamma| over the coupled batch norms, relative to the group's mean.

    Source: Liu et al., Network Slimming, ICCV 2017 (arXiv:1708.06519).
    """

    def __init__(self) -> None:
        super().__init__()
