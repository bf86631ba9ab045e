"""Channels matter by the size of their weights."""

from torch_pruning.pruner.importance import GroupMagnitudeImportance


class Magnitude(GroupMagnitudeImportance):
    """Mean over the coupled layers (convolutions in and out, batch norms) of sum |w|^p.

    Source: Li et al., ICLR 2017 (arXiv:1608.08710); summed over coupled layers as in Fang et al., CVPR 2023
    (arXiv:2301.12900).

    Args:
        p: 1 for the sum of absolute weights, 2 for the sum of squares.

    Raises:
        ValueError: `p` is neither 1 nor 2.
    """

    def __init__(self, p: int = 2) -> None:
        if p not in (1, 2):
            raise ValueError(f"p is {p}, expected 1 or 2")
        super().__init__(p=p)
