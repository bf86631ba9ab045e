"""Re-fits a pruned network to the original's responses in closed form, without a gradient step.

Front to back, every convolution gets the weights that, on what the pruned network itself now feeds it, come
closest to the original's responses in the channels that were kept (ridge regression towards the weights that
it has); so each layer makes up for the channels it lost and for the errors of the layers before it. The
intercepts go into the batch norms' running means, whose scales and shifts stay the original's. The heads come
last.

Source: He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017
(arXiv:1707.06168); Luo et al., ThiNet, ICCV 2017 (arXiv:1707.06342).
"""

import copy
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leanface.errors import ConfigError
from leanface.networks.resnet import STAGE_DEPTHS, Bottleneck, FaceReconstructionNet, batch_norm_of
from leanface.pruning.groups import KeptChannels

CHUNK = 32
"""Images that pass through a layer at once: few enough for the allocator to reuse their maps' memory."""

FAINT = 0.05
"""A batch norm's scale, relative to its layer's median, below which a channel is not asked to correct the
identity branch: its weights would have to be huge, and training would diverge from there."""


class LayerFit(NamedTuple):
    """Mean squared distance of a convolution's responses to their target, over the target's variance."""

    name: str
    error_before: float
    error_after: float


@torch.no_grad()
def compensate(
    network: FaceReconstructionNet,
    teacher: FaceReconstructionNet,
    kept: KeptChannels,
    images: Float[Tensor, "batch 3 height width"],
    ridge: float,
) -> tuple[FaceReconstructionNet, list[LayerFit]]:
    """A re-fitted copy of `network` in eval mode, and the gain at each convolution, in order of execution.

    Both networks run once, layer by layer, over all images at a time: memory is a few times the original's
    largest feature map of the whole batch.

    Args:
        network: the pruned `teacher`.
        teacher: the original, in eval mode.
        kept: the pruning record.
        images: calibration images in [0,1]; no labels are needed.
        ridge: how strongly the old weights hold, relative to the mean variance of a layer's inputs.

    Raises:
        ConfigError: `ridge` is too small.
    """
    refit = _Refit(copy.deepcopy(network).eval(), kept, ridge)
    original = teacher.backbone
    chunks = [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]
    wanted = [original.conv1(chunk) for chunk in chunks]
    x = [original.maxpool(F.relu(chunk)) for chunk in refit("backbone.conv1", chunks, wanted)]
    t = [original.maxpool(F.relu(original.bn1(chunk))) for chunk in wanted]
    del wanted
    for stage, depth in enumerate(STAGE_DEPTHS, start=1):
        for place in range(depth):
            x, t = _refit_block(refit, f"backbone.layer{stage}.{place}", teacher, x, t)
    x, t = [original.avgpool(chunk) for chunk in x], [original.avgpool(chunk) for chunk in t]
    for index, head in enumerate(teacher.final_layers):
        refit(f"final_layers.{index}", x, [head(chunk) for chunk in t])
    return refit.student, refit.fits


Chunks = list[Tensor]
"""Feature maps of all images, (B,C,H,W) each."""


class _Refit:
    """Re-fits the convolutions of one student, by name, and keeps the account."""

    def __init__(self, student: FaceReconstructionNet, kept: KeptChannels, ridge: float) -> None:
        self.student, self.kept, self.ridge = student, kept, ridge
        self.fits: list[LayerFit] = []

    def __call__(self, name: str, x: Chunks, wanted: Chunks, extra: Chunks | None = None) -> Chunks:
        """Re-fit one convolution on inputs `x` to the original's responses of the channels that it kept.

        Args:
            name: the convolution.
            x: the student's input to it.
            wanted: all of the original's responses.
            extra: added to the responses that are wanted from the kept channels.

        Returns:
            The student's new responses, after its batch norm if it has one.
        """
        conv = cast(nn.Conv2d, self.student.get_submodule(name))
        moments = _Moments(conv)
        for place, (inputs, responses) in enumerate(zip(x, wanted, strict=True)):
            target = responses[:, self.kept[name]]
            if extra is not None:
                target += extra[place]
            moments.add(inputs, target)
        change, intercept, before, after = moments.solve(self.ridge)
        self.fits.append(LayerFit(name, before, after))
        conv.weight += change
        norm = batch_norm_of(name)
        if norm is None:
            assert conv.bias is not None
            conv.bias += intercept
            return [conv(chunk) for chunk in x]
        batch_norm = cast(nn.BatchNorm2d, self.student.get_submodule(norm))
        assert batch_norm.running_mean is not None
        batch_norm.running_mean -= intercept
        return [batch_norm(conv(chunk)) for chunk in x]


def _refit_block(
    refit: _Refit, name: str, teacher: FaceReconstructionNet, x: Chunks, t: Chunks
) -> tuple[Chunks, Chunks]:
    """One bottleneck: `x` is the student's input and `t` the teacher's; returns their outputs."""
    block = cast(Bottleneck, teacher.get_submodule(name))
    inner, t_inner = x, t
    for conv, norm in (("conv1", block.bn1), ("conv2", block.bn2)):
        wanted = [block.get_submodule(conv)(chunk) for chunk in t_inner]
        inner = [F.relu_(chunk) for chunk in refit(f"{name}.{conv}", inner, wanted)]
        t_inner = [F.relu_(norm(chunk)) for chunk in wanted]

    identity, t_identity = x, t
    if block.downsample is not None:
        wanted = [block.downsample[0](chunk) for chunk in t]
        identity = refit(f"{name}.downsample.0", x, wanted)
        t_identity = [block.downsample[1](chunk) for chunk in wanted]

    # The last convolution aims at the block's sum, not at its own response: so it also mends what is wrong in
    # the student's identity branch, where errors would otherwise pile up from block to block.
    channels = refit.kept[f"{name}.conv3"]
    scale = _scale(block.bn3)[channels]
    mendable = scale.abs() > FAINT * scale.abs().median()
    per_unit = torch.where(mendable, 1 / scale, 0.0)[:, None, None]
    extra = [(b[:, channels] - a) * per_unit for a, b in zip(identity, t_identity, strict=True)]
    wanted = [block.conv3(chunk) for chunk in t_inner]
    residual = refit(f"{name}.conv3", inner, wanted, extra)
    return (
        [F.relu_(a + b) for a, b in zip(identity, residual, strict=True)],
        [F.relu_(a + block.bn3(b)) for a, b in zip(t_identity, wanted, strict=True)],
    )


def _scale(norm: nn.BatchNorm2d) -> Float[Tensor, " channels"]:
    """What a batch norm multiplies its input with."""
    assert norm.running_var is not None
    return norm.weight * torch.rsqrt(norm.running_var + norm.eps)


class _Moments:
    """Sums over calibration images from which one convolution's ridge regression is solved.

    What is fitted is the residual (target less present response), not the target: so a layer that is right as
    it is stays bitwise untouched. Products are FP32, of centered inputs (activations are far from zero mean);
    their sums are FP64.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        self.conv = conv
        inputs, outputs = conv.weight[0].numel(), conv.out_channels
        zeros = torch.zeros(inputs, inputs, dtype=torch.float64, device=conv.weight.device)
        self.gram, self.cross = zeros, zeros.new_zeros(inputs, outputs)
        self.x_sum, self.r_sum, self.r_squares = (zeros.new_zeros(count) for count in (inputs, outputs, outputs))
        self.y_sum, self.y_squares = zeros.new_zeros(outputs), zeros.new_zeros(outputs)
        self.rows = 0
        self.x_center: Tensor | None = None
        self.y_center: Tensor | None = None

    def add(self, x: Float[Tensor, "batch inputs h w"], target: Float[Tensor, "batch outputs h2 w2"]) -> None:
        """Count in some images."""
        patches = _patches(self.conv, x)
        wanted = target.permute(0, 2, 3, 1).reshape(-1, self.conv.out_channels)
        residual = (target - self.conv(x)).permute(0, 2, 3, 1).reshape(-1, self.conv.out_channels)
        if self.x_center is None or self.y_center is None:
            self.x_center, self.y_center = patches.mean(dim=0), wanted.mean(dim=0)
        patches, wanted = patches - self.x_center, wanted - self.y_center
        self.gram += patches.T @ patches
        self.cross += patches.T @ residual
        self.x_sum += patches.sum(dim=0)
        self.r_sum += residual.sum(dim=0)
        self.r_squares += residual.square().sum(dim=0)
        self.y_sum += wanted.sum(dim=0)
        self.y_squares += wanted.square().sum(dim=0)
        self.rows += len(patches)

    def solve(self, ridge: float) -> tuple[Tensor, Tensor, float, float]:
        """Change of the weights, intercept, and the errors of `LayerFit` before and after.

        Raises:
            ConfigError: `ridge` is too small for FP32.
        """
        assert self.x_center is not None
        x_mean, r_mean = self.x_sum / self.rows, self.r_sum / self.rows
        covariance = self.gram / self.rows - torch.outer(x_mean, x_mean)
        cross = self.cross / self.rows - torch.outer(x_mean, r_mean)
        # The smallest normal number keeps the system regular where all of a layer's inputs are constant.
        strength = ridge * float(covariance.diagonal().mean()) + torch.finfo(torch.float32).tiny
        regular = covariance + strength * torch.eye(len(covariance), device=covariance.device)
        factor, failed = cast(tuple[Tensor, Tensor], torch.linalg.cholesky_ex(regular))
        if int(failed):
            raise ConfigError(f"prune.ridge {ridge} drowns in the rounding of FP32 sums; use at least 1e-4.")
        change = torch.cholesky_solve(cross, factor)
        intercept = r_mean - (x_mean + self.x_center) @ change

        before = self.r_squares.sum() / self.rows
        gain = r_mean.square().sum() + (2 * change * cross).sum() - (change * (covariance @ change)).sum()
        variance = (self.y_squares / self.rows - (self.y_sum / self.rows).square()).sum().clamp_min(1e-30)
        weight = self.conv.weight
        return (
            change.T.reshape(weight.shape).to(weight),
            intercept.to(weight),
            float(before / variance),
            float((before - gain).clamp_min(0) / variance),
        )


def _patches(conv: nn.Conv2d, x: Tensor) -> Float[Tensor, "rows inputs"]:
    """What the convolution multiplies with its weights, one row per output position."""
    stride, padding = cast(tuple[int, int], conv.stride), cast(tuple[int, int], conv.padding)
    if conv.kernel_size == (1, 1):
        return x[:, :, :: stride[0], :: stride[1]].permute(0, 2, 3, 1).reshape(-1, conv.in_channels)
    unfolded = F.unfold(x, cast(tuple[int, int], conv.kernel_size), padding=padding, stride=stride)
    return unfolded.transpose(1, 2).reshape(-1, unfolded.shape[1])
