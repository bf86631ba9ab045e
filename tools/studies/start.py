"""What a student may start from."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from leanface import bundle, paths
from leanface.config import Prune
from leanface.errors import ConfigError
from leanface.networks.resnet import HEAD_SIZES, STAGE_DEPTHS, batch_norm_of, build_network
from leanface.networks.widths import widths_of
from leanface.pruning.prune import prune
from leanface.synthesis.dataset import FaceDataset
from leanface.tasks.face.task import FaceTask
from leanface.tasks.face.teacher import initialize_heads
from tools.studies.variants import Start

Kept = Mapping[str, Sequence[int]]


def pipeline_student(folder: Path = paths.PRUNED) -> tuple[nn.Module, Kept]:
    """What stage prune left, and its record.

    Raises:
        ConfigError: it has none.
    """
    network, spec = bundle.load_network(folder)
    if spec.kept_channels is None:
        raise ConfigError(f"{folder} has no pruning record; set prune.ratio above 0 and run stage prune.")
    return network, spec.kept_channels


def pruned_student(
    original: nn.Module, settings: Prune, task: FaceTask, seed: int, device: torch.device
) -> tuple[nn.Module, Kept]:
    """The original, pruned and re-fitted as stage prune does, on the CPU; and its record."""
    images = FaceDataset(paths.FACES / "train").head(settings.calibration_count).images.to(device)
    # The re-fit solves for weights: TF32's three digits are too few.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        result = prune(copy.deepcopy(original).to(device), settings, images, task, seed)
    return result.network.to("cpu").eval(), result.kept


def starting_network(
    start: Start,
    original: nn.Module,
    pruned: nn.Module,
    kept: Kept,
    task: FaceTask,
    seed: int,
) -> nn.Module:
    """A student of `pruned`'s widths: a copy of it, the original's weights merely cut to size, or new ones."""
    if start == "pruned":
        return copy.deepcopy(pruned)
    if start == "uncompensated":
        return cut(original, kept)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(widths_of(pruned))
        initialize_heads(network, task)
    return network.eval()


def cut(original: nn.Module, kept: Kept) -> nn.Module:
    """The original without the channels that a pruning record leaves out, its weights unchanged otherwise."""
    source, sources, widths = original.state_dict(), _sources(original), widths_of(original)
    inputs = {name: list(kept[sources[name]]) if name in sources else [0, 1, 2] for name in widths}
    network = build_network({name: (len(inputs[name]), len(kept[name])) for name in widths})
    state: dict[str, Tensor] = {}
    for name in widths:
        outputs = list(kept[name])
        for key in (key for key in source if key.startswith((f"{name}.", f"{batch_norm_of(name)}."))):
            tensor = source[key]  # a batch norm counts its batches in a scalar
            state[key] = tensor[outputs] if tensor.ndim else tensor
        state[f"{name}.weight"] = state[f"{name}.weight"][:, inputs[name]]
    network.load_state_dict(state, strict=True)
    return network.eval()


def _sources(network: nn.Module) -> dict[str, str]:
    """The convolution whose channels each one reads, but for the first; a block's last one stands for the stream."""
    sources, stream = dict[str, str](), "backbone.conv1"
    for stage, depth in enumerate(STAGE_DEPTHS, start=1):
        for index in range(depth):
            block = f"backbone.layer{stage}.{index}"
            sources |= {f"{block}.downsample.0": stream} if index == 0 else {}
            sources |= {
                f"{block}.conv1": stream,
                f"{block}.conv2": f"{block}.conv1",
                f"{block}.conv3": f"{block}.conv2",
            }
            stream = f"{block}.conv3"
    return sources | {f"final_layers.{index}": stream for index in range(len(HEAD_SIZES))}
