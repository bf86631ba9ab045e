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
from leanface.pruning.prune import Kept

PATCH_ELEMENTS = 2**25
"""Largest matrix of image patches that is held at once (128 MiB)."""

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
    kept: Kept,
    images: Float[Tensor, "batch 3 height width"],
    ridge: float,
) -> tuple[FaceReconstructionNet, list[LayerFit]]:
    """A re-fitted copy of `network` in eval mode, and what was gained at each convolution, in order of
    execution.

    Both networks run once, layer by layer, over all images at a time: memory is about ten times the
    original's largest feature map of the whole batch.

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
    wanted = original.conv1(images)
    x = original.maxpool(F.relu(refit("backbone.conv1", images, wanted)))
    t = original.maxpool(F.relu(original.bn1(wanted)))
    del wanted
    for stage, depth in enumerate(STAGE_DEPTHS, start=1):
        for place in range(depth):
            x, t = _refit_block(refit, f"backbone.layer{stage}.{place}", teacher, x, t)
    x, t = original.avgpool(x), original.avgpool(t)
    for index, head in enumerate(teacher.final_layers):
        refit(f"final_layers.{index}", x, head(t))
    return refit.student, refit.fits


class _Refit:
    """Re-fits the convolutions of one student, by name, and keeps the account."""

    def __init__(self, student: FaceReconstructionNet, kept: Kept, ridge: float) -> None:
        self.student, self.kept, self.ridge = student, kept, ridge
        self.fits: list[LayerFit] = []

    def __call__(
        self,
        name: str,
        x: Tensor,
        wanted: Float[Tensor, "batch many height width"],
        extra: Tensor | float = 0.0,
    ) -> Float[Tensor, "batch few height width"]:
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
        target = wanted[:, self.kept[name]] + extra
        residual = target - conv(x)
        change, intercept = _ridge_update(conv, x, residual, self.ridge)
        conv.weight += change
        response = conv(x)
        self._record(name, target, residual, target - response - intercept[:, None, None])
        norm = batch_norm_of(name)
        if norm is None:
            assert conv.bias is not None
            conv.bias += intercept
            return response + intercept[:, None, None]
        batch_norm = cast(nn.BatchNorm2d, self.student.get_submodule(norm))
        assert batch_norm.running_mean is not None
        batch_norm.running_mean -= intercept
        return batch_norm(response)

    def _record(self, name: str, target: Tensor, before: Tensor, after: Tensor) -> None:
        variance = target.var(dim=(0, 2, 3), unbiased=False).mean()
        errors = (float(residual.square().mean() / variance) for residual in (before, after))
        self.fits.append(LayerFit(name, *errors))


def _refit_block(
    refit: _Refit, name: str, teacher: FaceReconstructionNet, x: Tensor, t: Tensor
) -> tuple[Tensor, Tensor]:
    """One bottleneck: `x` is the student's input and `t` the teacher's; returns their outputs."""
    block = cast(Bottleneck, teacher.get_submodule(name))
    wanted = block.conv1(t)
    inner, t_inner = F.relu(refit(f"{name}.conv1", x, wanted)), F.relu(block.bn1(wanted))
    wanted = block.conv2(t_inner)
    inner, t_inner = F.relu(refit(f"{name}.conv2", inner, wanted)), F.relu(block.bn2(wanted))

    identity, t_identity = x, t
    if block.downsample is not None:
        wanted = block.downsample[0](t)
        identity, t_identity = refit(f"{name}.downsample.0", x, wanted), block.downsample[1](wanted)

    # The last convolution aims at the block's sum, not at its own response: so it also mends what is wrong in
    # the student's identity branch, where errors would otherwise pile up from block to block.
    channels = refit.kept[f"{name}.conv3"]
    scale = _scale(block.bn3)[channels]
    mendable = scale.abs() > FAINT * scale.abs().median()
    per_unit = torch.where(mendable, 1 / scale, 0.0)[:, None, None]
    wanted = block.conv3(t_inner)
    residual = refit(f"{name}.conv3", inner, wanted, (t_identity[:, channels] - identity) * per_unit)
    return F.relu(identity + residual), F.relu(t_identity + block.bn3(wanted))


def _scale(norm: nn.BatchNorm2d) -> Float[Tensor, " channels"]:
    """What a batch norm multiplies its input with."""
    assert norm.running_var is not None
    return norm.weight * torch.rsqrt(norm.running_var + norm.eps)


def _ridge_update(
    conv: nn.Conv2d, x: Tensor, residual: Tensor, ridge: float
) -> tuple[Float[Tensor, "outputs inputs kh kw"], Float[Tensor, " outputs"]]:
    """Change of a convolution's weights, and the intercept, that explain `residual` best.

    Fitting the residual rather than the target leaves a layer that is right as it is bitwise untouched, and
    lets the normal equations be summed from FP32 products of centred inputs (activations are far from zero
    mean).
    """
    outputs, inputs = conv.out_channels, conv.weight[0].numel()
    gram = torch.zeros(inputs, inputs, dtype=torch.float64, device=x.device)
    cross, x_sum, r_sum = gram.new_zeros(inputs, outputs), gram.new_zeros(inputs), gram.new_zeros(outputs)
    rows = residual[:, 0].numel()
    at_once = max(1, PATCH_ELEMENTS // (inputs * residual[0, 0].numel()))
    centre = _patches(conv, x[:at_once]).mean(dim=0)
    for start in range(0, len(x), at_once):
        patches = _patches(conv, x[start : start + at_once]) - centre
        errors = residual[start : start + at_once].permute(0, 2, 3, 1).reshape(-1, outputs)
        gram += patches.T @ patches
        cross += patches.T @ errors
        x_sum += patches.sum(dim=0)
        r_sum += errors.sum(dim=0)
    x_mean, r_mean = x_sum / rows, r_sum / rows
    covariance = gram / rows - torch.outer(x_mean, x_mean)
    # The smallest normal number keeps the system regular where all of a layer's inputs are constant.
    strength = ridge * float(covariance.diagonal().mean()) + torch.finfo(torch.float32).tiny
    covariance.diagonal().add_(strength)
    factor, failed = cast(tuple[Tensor, Tensor], torch.linalg.cholesky_ex(covariance))
    if int(failed):
        raise ConfigError(f"prune.ridge {ridge} drowns in the rounding of FP32 sums; use at least 1e-4.")
    change = torch.cholesky_solve(cross / rows - torch.outer(x_mean, r_mean), factor)
    intercept = r_mean - (x_mean + centre) @ change
    return change.T.reshape(conv.weight.shape).to(conv.weight), intercept.to(conv.weight)


def _patches(conv: nn.Conv2d, x: Tensor) -> Float[Tensor, "rows inputs"]:
    """What the convolution multiplies with its weights, one row per output position."""
    stride, padding = cast(tuple[int, int], conv.stride), cast(tuple[int, int], conv.padding)
    if conv.kernel_size == (1, 1):
        return x[:, :, :: stride[0], :: stride[1]].permute(0, 2, 3, 1).reshape(-1, conv.in_channels)
    unfolded = F.unfold(x, cast(tuple[int, int], conv.kernel_size), padding=padding, stride=stride)
    return unfolded.transpose(1, 2).reshape(-1, unfolded.shape[1])
