"""What a layer multiplies with its weights: all of it, or at some positions."""

import pytest
import torch
from torch import nn

from leanface.networks.layer_inputs import patches_of, rows_of


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 4, 1),
        nn.Conv2d(6, 4, 1, stride=2),
        nn.Conv2d(6, 4, (3, 5), stride=(2, 1), padding=(1, 2)),
        nn.Conv2d(6, 4, 3, padding=2, dilation=2),
        nn.Conv2d(6, 6, 3, padding=1, groups=3),
        nn.Linear(6, 4),
    ],
    ids=["1x1", "stride", "oblong", "dilation", "groups", "linear"],
)
def test_patches_at_some_positions_are_those_of_all(layer: nn.Conv2d | nn.Linear) -> None:
    x = torch.randn(3, 6) if isinstance(layer, nn.Linear) else torch.randn(3, 6, 9, 8)
    answers = layer(x)
    whole = patches_of(layer, x)
    weights = layer.weight.flatten(1)
    if getattr(layer, "groups", 1) == 1:
        assert torch.allclose(whole @ weights.T + layer.bias, rows_of(answers), atol=1e-5)
    if answers.ndim == 2:
        assert torch.equal(patches_of(layer, x, torch.tensor([0])), x)
        return
    count = answers[0, 0].numel()
    positions = torch.randperm(count)[:7]
    chosen = (torch.arange(3)[:, None] * count + positions).flatten()
    assert torch.equal(patches_of(layer, x, positions), whole[chosen])
    assert torch.equal(rows_of(answers, positions), rows_of(answers)[chosen])
