"""Where the original network comes from: shipped, trained here, ModelScope's, or a file."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from leanface.bundle import load_network
from leanface.config import Data, Machine, Teacher
from leanface.errors import ArtifactError
from leanface.face.coefficients import HEAD_SIZES
from leanface.inputs import locate
from leanface.networks.modelscope import load_checkpoint, load_modelscope
from leanface.networks.packed import load_packed, load_pretrained
from leanface.networks.resnet import FaceReconstructionNet, build_network, scaled_widths
from leanface.paths import TEACHER_REPORT, TEACHER_STATE
from leanface.synthesis.synthesis import population
from leanface.tasks.face.losses import SupervisedCriterion
from leanface.tasks.face.task import FaceTask
from leanface.training.fit import MetricLog, Session, fit, resolve_device


class Request(NamedTuple):
    """What every source may need."""

    teacher: Teacher
    data: Data
    machine: Machine
    seed: int
    task: FaceTask
    log: MetricLog | None


def _pretrained(request: Request) -> FaceReconstructionNet:
    return load_pretrained(request.data.image_size)


def _modelscope(request: Request) -> FaceReconstructionNet:
    path = request.teacher.path
    return load_modelscope(None if path is None else locate(path))


def _checkpoint(request: Request) -> FaceReconstructionNet:
    assert request.teacher.path is not None  # the configuration is refused without it
    return _open(locate(request.teacher.path))


def _open(path: Path) -> FaceReconstructionNet:
    if path.is_dir():
        network, spec = load_network(path)
        if not isinstance(network, FaceReconstructionNet):
            raise ArtifactError(f"{path} holds a network of task {spec.task}; name one that reads faces.")
        return network
    if not path.is_file():
        raise ArtifactError(
            f"{path} is missing; name a PyTorch or safetensors checkpoint in ModelScope's layout, a LeanFace bundle's "
            "folder, or a packed .npz."
        )
    return load_packed(path) if path.suffix == ".npz" else load_checkpoint(path)


def _trained(request: Request) -> FaceReconstructionNet:
    teacher, data, machine, seed, task, log = request
    torch.manual_seed(seed)
    if teacher.start_from is None:
        network = build_network(scaled_widths(teacher.width))
        initialize_heads(network, task)
    else:
        network = _open(locate(teacher.start_from))
    batches = task.training_data(
        teacher.optimizer.batch_size,
        seed,
        stream_sizes=teacher.image_sizes if teacher.streamed else None,
        device=resolve_device(machine),
    )
    key = [teacher.model_copy(update={"piece_seconds": None, "measure": None}), data]
    fit(
        network,
        SupervisedCriterion(task.model, teacher.photometric_weight),
        batches,
        teacher.optimizer,
        Session(machine, seed, TEACHER_REPORT, log, TEACHER_STATE, key, teacher.piece_seconds),
        task=task,
        freeze_batch_norm=teacher.freeze_batch_norm,
    )
    return network


SOURCES: dict[str, Callable[[Request], FaceReconstructionNet]] = {
    "pretrained": _pretrained,
    "trained": _trained,
    "modelscope": _modelscope,
    "checkpoint": _checkpoint,
}


LICENSES = {
    "pretrained": "Apache-2.0, by LeanFace; trained on renders of CC0-1.0 data alone",
    "trained": "for whoever trained it to say",
    "modelscope": "that of iic/cv_resnet50_face-reconstruction on ModelScope and of the Basel Face Model",
}
"""Of the weights from these sources; a checkpoint's is not known."""


def original_network(request: Request) -> FaceReconstructionNet:
    """Load or train the original network, in eval mode, from the configured source.

    Raises:
        ArtifactError: its weights are missing or not this network's.
        Unfinished: a training in pieces needs another run.
    """
    return SOURCES[request.teacher.source](request).eval()


@torch.no_grad()
def initialize_heads(network: FaceReconstructionNet, task: FaceTask) -> None:
    """Start from the population's mean, with outputs of the population's order of magnitude."""
    mean, _ = population(task.model)
    biases: tuple[Tensor, ...] = torch.split(mean, list(HEAD_SIZES))
    for head, bias, scale in zip(network.final_layers, biases, task.output_scales().values(), strict=True):
        head.get_parameter("weight").normal_(std=0.01 * scale)
        head.get_parameter("bias").copy_(bias)
