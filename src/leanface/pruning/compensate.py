"""Re-fits a pruned network to the original's responses in closed form, without a gradient step.

Front to back, every convolution and linear layer gets the weights that, on what the pruned network itself now feeds it,
come closest to the original's responses in the channels that were kept (ridge regression towards the weights that it
has); so each layer makes up for the channels it lost and for the errors of the layers before it. The intercepts go into
the batch norms' running means, whose scales and shifts stay the original's, or into the layer's bias.

Source: He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017
(arXiv:1707.06168); Luo et al., ThiNet, ICCV 2017 (arXiv:1707.06342).
"""

import copy
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int64
from torch import Tensor, fx, nn

from leanface.errors import ConfigError
from leanface.networks.graph import LAYERS, NORMS, Graph, trace
from leanface.networks.layer_inputs import Chunks, Layer, can_unfold, compute_chunks, in_chunks, patches_of, rows_of
from leanface.networks.widths import dropped_blocks
from leanface.pruning.groups import KeptChannels

FAINT = 0.05
"""A batch norm's scale, relative to its layer's median, below which a channel is not asked to correct the
identity branch: its weights would have to be huge, and training would diverge from there."""


POSITIONS_MIN = 16
"""Of a feature map, that are looked at in any case."""


class LayerFit(NamedTuple):
    """Mean squared distance of a layer's responses to their target, over the target's variance.

    A layer that could not be re-fitted is left as it was; `left` says why, and both errors are NaN.
    """

    name: str
    error_before: float
    error_after: float
    left: str = ""


@torch.no_grad()
def compensate(
    network: nn.Module,
    teacher: nn.Module,
    kept: KeptChannels,
    images: Float[Tensor, "batch 3 height width"],
    ridge: float,
    position_share: float = 1.0,
) -> tuple[nn.Module, list[LayerFit]]:
    """Return a re-fitted copy of `network` in eval mode, and the gain at each layer, in order of execution.

    Both networks run once, layer by layer, over all images at a time: memory is a few times the original's
    largest feature map of the whole batch.

    Args:
        network: the pruned `teacher`; what is in no layer of `kept` was dropped, and is the identity.
        teacher: the original, in eval mode.
        kept: the pruning record.
        images: calibration images in [0,1]; no labels are needed.
        ridge: how strongly the old weights hold, relative to the mean variance of a layer's inputs.
        position_share: of each feature map's positions, that are looked at: neighbors say much the same, so more
            images tell more than all their positions.

    Raises:
        ConfigError: `ridge` is too small.
        NetworkError: a network has an operation that is not known.
    """
    graph, student = trace(teacher), copy.deepcopy(network).eval()
    fits: list[LayerFit] = []
    dropped = dropped_blocks(teacher, kept)
    ours: dict[fx.Node, Chunks] = {graph.nodes[0]: in_chunks(images)}
    theirs: dict[fx.Node, Chunks] = {graph.nodes[0]: in_chunks(images)}
    for node in graph.nodes[1:-1]:
        theirs[node] = compute_chunks(graph, node, theirs, teacher)
        name, inputs = str(node.target), ours[node.all_input_nodes[0]]
        if graph.is_inside(node, dropped):
            ours[node] = list(inputs)
        else:
            if name in graph.layers:
                channels = kept[name]
                wanted = [chunk[:, channels] for chunk in theirs[node]]
                added = _added(graph, node)
                if added is not None:
                    per_unit = _per_unit(graph, name, channels)
                    for target, a, b in zip(wanted, ours[added], theirs[added], strict=True):
                        target += (b[:, channels] - a) * per_unit
                fits.append(_refit(graph, name, student, inputs, wanted, ridge, position_share))
                del wanted
            ours[node] = compute_chunks(graph, node, ours, student)
        for dead in graph.dead_after[node]:
            del ours[dead], theirs[dead]
    return student, fits


def _added(graph: Graph, node: fx.Node) -> fx.Node | None:
    """Return what is added to a layer's response, after its batch norm, if that is known when the layer's turn comes.

    Such a layer aims at the sum, not at its own response: so it also mends what is wrong in the student's identity
    branch, where errors would otherwise pile up from block to block.
    """
    name = str(node.target)
    last = next(iter(node.users)) if name in graph.norms else node
    readers = list(last.users)
    operands = graph.operands(readers[0]) if len(readers) == 1 else None
    if operands is None:
        return None
    other = operands[1] if operands[0] is last else operands[0]
    return other if graph.nodes.index(other) < graph.nodes.index(node) else None


def _per_unit(graph: Graph, name: str, channels: list[int]) -> Tensor:
    """Return what change of a response changes the sum by 1; 0 for channels too faint to mend."""
    layer = graph.network.get_submodule(name)
    assert isinstance(layer, LAYERS)
    if name not in graph.norms:
        return layer.weight.new_ones(())
    norm = graph.network.get_submodule(graph.norms[name])
    assert isinstance(norm, NORMS)
    scale = _scale(norm)[channels]
    mendable = scale.abs() > FAINT * scale.abs().median()
    per_unit = torch.where(mendable, 1 / scale, 0.0)
    return per_unit.view(-1, *[1] * (layer.weight.ndim - 2))


def _refit(
    graph: Graph, name: str, student: nn.Module, x: Chunks, wanted: Chunks, ridge: float, position_share: float
) -> LayerFit:
    """Re-fit one layer on inputs `x` to the responses that are wanted of the channels that it kept."""
    layer = student.get_submodule(name)
    assert isinstance(layer, LAYERS)
    norm = student.get_submodule(graph.norms[name]) if name in graph.norms else None
    if norm is None and layer.bias is None:
        return LayerFit(name, torch.nan, torch.nan, "it has neither a bias nor a batch norm right behind it")
    if not can_unfold(layer):
        return LayerFit(name, torch.nan, torch.nan, "its padding is not a number of zeros")
    moments = _Moments(layer, position_share)
    for inputs, target in zip(x, wanted, strict=True):
        moments.add(inputs, target)
    change, intercept, before, after = moments.solve(ridge)
    layer.weight += change
    if norm is None:
        layer.get_parameter("bias").add_(intercept)
    else:
        assert isinstance(norm, NORMS)
        assert norm.running_mean is not None
        norm.running_mean -= intercept
    return LayerFit(name, before, after)


def _scale(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Float[Tensor, " channels"]:
    """Return what a batch norm multiplies its input with."""
    assert norm.running_var is not None
    return norm.weight * torch.rsqrt(norm.running_var + norm.eps)


class _Moments:
    """Sums over calibration images from which one layer's ridge regression is solved, for each group of channels.

    What is fitted is the residual (target less present response), not the target: so a layer that is right as
    it is stays bitwise untouched. Products are FP32, of centered inputs (activations are far from zero mean);
    their sums are FP64.
    """

    def __init__(self, layer: Layer, position_share: float) -> None:
        self.layer = layer
        self._share, self._chance = position_share, torch.Generator().manual_seed(0)
        self.groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
        inputs, outputs = layer.weight[0].numel(), len(layer.weight) // self.groups
        zeros = torch.zeros(self.groups, inputs, inputs, dtype=torch.float64, device=layer.weight.device)
        self.gram, self.cross = zeros, zeros.new_zeros(self.groups, inputs, outputs)
        self.x_sum, self.r_sum, self.r_squares = (
            zeros.new_zeros(self.groups, count) for count in (inputs, outputs, outputs)
        )
        self.y_sum, self.y_squares = zeros.new_zeros(self.groups, outputs), zeros.new_zeros(self.groups, outputs)
        self.rows = 0
        self.x_center: Tensor | None = None
        self.y_center: Tensor | None = None

    def add(self, x: Tensor, target: Tensor) -> None:
        """Count in some images: inputs and wanted responses, (B,C,H,W) each, or (B,C) of a linear layer."""
        positions = self._positions(target)
        patches = self._by_group(patches_of(self.layer, x, positions))
        wanted = self._by_group(rows_of(target, positions))
        residual = self._by_group(rows_of(target - self.layer(x), positions))
        if self.x_center is None or self.y_center is None:
            self.x_center, self.y_center = patches.mean(dim=1, keepdim=True), wanted.mean(dim=1, keepdim=True)
        patches, wanted = patches - self.x_center, wanted - self.y_center
        self.gram += _product(patches.mT, patches)
        self.cross += _product(patches.mT, residual)
        self.x_sum += patches.sum(dim=1)
        self.r_sum += residual.sum(dim=1)
        self.r_squares += residual.square().sum(dim=1)
        self.y_sum += wanted.sum(dim=1)
        self.y_squares += wanted.square().sum(dim=1)
        self.rows += patches.shape[1]

    def _positions(self, maps: Tensor) -> Int64[Tensor, " chosen"] | None:
        """Choose positions of these maps at random; None: all of them."""
        count = maps[0, 0].numel()
        chosen = max(POSITIONS_MIN, round(self._share * count))
        if maps.ndim == 2 or chosen >= count:
            return None
        return torch.randperm(count, generator=self._chance)[:chosen].to(maps.device)

    def _by_group(self, rows: Float[Tensor, "rows values"]) -> Float[Tensor, "groups rows values_of_one"]:
        return rows.reshape(len(rows), self.groups, -1).transpose(0, 1)

    def solve(self, ridge: float) -> tuple[Tensor, Tensor, float, float]:
        """Change of the weights, intercept, and the errors of `LayerFit` before and after.

        Raises:
            ConfigError: `ridge` is too small for FP32.
        """
        assert self.x_center is not None
        x_mean, r_mean = self.x_sum / self.rows, self.r_sum / self.rows
        covariance = self.gram / self.rows - x_mean[:, :, None] * x_mean[:, None, :]
        cross = self.cross / self.rows - x_mean[:, :, None] * r_mean[:, None, :]
        # The smallest normal number keeps the system regular where all of a layer's inputs are constant.
        strength = (ridge * covariance.diagonal(dim1=1, dim2=2).mean(1) + torch.finfo(torch.float32).tiny).float()
        regular = covariance + strength[:, None, None] * torch.eye(covariance.shape[1], device=covariance.device)
        factor, failed = cast(tuple[Tensor, Tensor], torch.linalg.cholesky_ex(regular))
        if bool(failed.any()):
            raise ConfigError(f"prune.ridge {ridge} drowns in the rounding of FP32 sums; use at least 1e-4.")
        change = torch.cholesky_solve(cross, factor)
        intercept = r_mean - _product(x_mean[:, None] + self.x_center, change)[:, 0]

        before = self.r_squares.sum() / self.rows
        gain = r_mean.square().sum() + (2 * change * cross).sum() - (change * _product(covariance, change)).sum()
        variance = (self.y_squares / self.rows - (self.y_sum / self.rows).square()).sum().clamp_min(1e-30)
        weight = self.layer.weight
        return (
            change.mT.reshape(weight.shape).to(weight),
            intercept.flatten().to(weight),
            float(before / variance),
            float((before - gain).clamp_min(0) / variance),
        )


def _product(one: Float[Tensor, "groups m k"], other: Float[Tensor, "groups k n"]) -> Float[Tensor, "groups m n"]:
    """Multiply matrices; a single pair by the kernel for single matrices, which is faster and rounds otherwise."""
    return (one[0] @ other[0])[None] if len(one) == 1 else one @ other
