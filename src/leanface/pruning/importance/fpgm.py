"""Channels matter by how far their filters are from all others: what others can stand in for may go."""

import torch
from torch import Tensor, nn
from torch_pruning.dependency import Group

from leanface.pruning.groups import layers_with_outputs


class FPGM:
    """Sum of a filter's Euclidean distances to the others of its convolution; mean over the coupled convolutions.

    Relative to the convolution's mean. (torch-pruning's FPGMImportance measures distances between squared
    weights, which takes a filter and its negative for the same.)

    Source: He et al., Filter Pruning via Geometric Median, CVPR 2019 (arXiv:1811.00250).
    """

    def __call__(self, group: Group) -> Tensor:
        filters = [conv.weight.detach().flatten(1) for conv in layers_with_outputs(group, nn.Conv2d)]
        distances = [torch.cdist(each, each).sum(dim=1) for each in filters]
        return torch.stack([each / each.mean() for each in distances]).mean(dim=0)
