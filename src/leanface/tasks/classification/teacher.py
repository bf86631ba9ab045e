"""Make a classifier's teacher: trained here on the labels, or taken from a bundle."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leanface.bundle import load_network
from leanface.config import Machine, Original, Samples
from leanface.errors import ArtifactError
from leanface.inputs import locate
from leanface.metrics.outputs import mean_errors, predict
from leanface.networks.graph import trace
from leanface.paths import TEACHER_REPORT, TEACHER_STATE
from leanface.task import Batch, MadeTeacher, MetricLog, TaskNetwork
from leanface.tasks.classification.task import ClassificationTask
from leanface.training.fit import Session, fit

SHIFT = 8
"""Training images are moved by up to this share of their size (1/SHIFT), at random, all of a batch alike."""


class CrossEntropy(nn.Module):
    """With the labels, of images that are moved a little."""

    def forward(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return {"loss": ...}."""
        assert batch.targets is not None  # a classifier's samples have labels
        reach = batch.images.shape[-1] // SHIFT
        padded = F.pad(batch.images, (reach,) * 4, mode="replicate")
        top, left = (int(torch.randint(2 * reach + 1, ())) for _ in range(2))
        images = padded[..., top : top + batch.images.shape[2], left : left + batch.images.shape[3]].contiguous()
        return {"loss": F.cross_entropy(network(images).float(), batch.targets.argmax(1))}


def make_classifier(
    task: ClassificationTask,
    builder: TaskNetwork,
    settings: Original,
    data: Samples,
    machine: Machine,
    seed: int,
    log: MetricLog,
    seconds: float | None,
) -> MadeTeacher:
    """Train or load the network, and measure it on the test split; see `leanface.task.WholeTask.make_teacher`.

    Raises:
        ArtifactError: the network's answers, or those of the bundle, are not one logit per class.
        NetworkError: it has operations that cannot be compressed.
    """
    license = None
    if settings.path is not None and settings.source == "checkpoint":
        network, spec = load_network(locate(settings.path))
        license = spec.license
    else:
        torch.manual_seed(seed)
        network = builder.build()
    trace(network)  # refuses it before it is trained
    _check_answers(network, task.classes, data.image_size)
    if settings.source == "trained":
        batches = task.training_data(settings.optimizer.batch_size, seed)
        session = Session(machine, seed, TEACHER_REPORT, log, TEACHER_STATE, [settings, data], seconds)
        fit(network, CrossEntropy(), batches, settings.optimizer, session, task=task)
        license = "for whoever trained it to say"
    network.eval()
    test = task.split("test")
    errors = mean_errors(task, predict(network, test), test.truth()["truth"])
    metrics = {f"truth_{name}": value for name, value in errors.items()} | {"accuracy": 1 - errors["error"]}
    return MadeTeacher(network, license, metrics)


@torch.no_grad()
def _check_answers(network: nn.Module, classes: int, size: int) -> None:
    try:
        shape = tuple(network.eval()(torch.zeros(2, 3, size, size)).shape)
    except Exception as error:
        raise ArtifactError(
            f"the network cannot read images (2,3,{size},{size}): {type(error).__name__}: {error}"
        ) from None
    if shape != (2, classes):
        raise ArtifactError(f"the network answers 2 images with shape {shape}; expected (2, {classes}).")
