"""What a network is for: the contract between compression and a subject, such as faces.

Pruning, distillation, quantization, training and export know a network's inputs and outputs as tensors only. What an
output means, how wrong it is, and where samples come from is told by a `Task`. The face is the first one
(`leanface.tasks.face`); docs/decisions/0014-task.md says why the line runs here.
"""

import hashlib
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Protocol, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.catalog import TASKS
from leanface.errors import ConfigError, did_you_mean

Layout = Mapping[str, tuple[int, int]]
"""Where each kind of output begins and ends, by its name."""


class Batch(NamedTuple):
    """Samples of a task; a single sample lacks the first dimension.

    Attributes:
        images: float32 (B,3,H,W), RGB in [0,1].
        targets: float32 (B,outputs), the true outputs; None where there are no labels.
        keys: int64 (B,), which tell stored images apart by their contents, so that what a network makes of an image
            can be remembered; None says that the images will not come again.
    """

    images: Tensor
    targets: Tensor | None
    keys: Tensor | None = None


class Split(Protocol):
    """Stored samples, in order."""

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        ...

    def __len__(self) -> int: ...

    def head(self, count: int) -> Batch:
        """Return the first `count` samples (or all there are) as one batch."""
        ...

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all samples in order, `size` at a time."""
        ...

    def truth(self) -> dict[str, Tensor]:
        """Return the labels (N,outputs) as {"truth": labels}; without labels {}."""
        ...

    def labeled(self, outputs: Float[Tensor, "count outputs"]) -> Self:
        """Return this split if it has labels, else one whose labels are a network's outputs."""
        ...


class TrainingData(Protocol):
    """A LightningDataModule of `Batch`es, and what `leanface.training.fit` wants to know of it.

    Attributes:
        batch_size: of a step, over all devices.
        streamed: whether samples are made as training goes, in place of stored ones.
    """

    batch_size: int

    @property
    def streamed(self) -> bool: ...

    def statistics_images(self) -> Iterator[Tensor]:
        """Yield batches of uint8 images (B,3,H,W) that no step takes, to measure batch norms on; streamed data only."""
        ...


class SampleError(Protocol):
    """A differentiable error, a torch module."""

    def per_sample(self, predicted: Tensor, target: Tensor) -> Float[Tensor, " batch"]:
        """Measure outputs (B,outputs) against targets of the same shape."""
        ...


Deviation = dict[str, float]
"""How far a changed network's outputs are from the unchanged one's, means over samples by measure. Layers are ranked by
the first one; lower is better."""


class Task(Protocol):
    """What a network's outputs mean.

    Attributes:
        selection: the key of `errors` by which the best weights of a training are chosen; lower is better.
    """

    selection: str

    def to(self, device: torch.device | str) -> Self:
        """Move what errors are computed with to a device, in place."""
        ...

    def split(self, name: str) -> Split:
        """Open a stored split: "train", "val" or "test".

        Raises:
            ArtifactError: stage prepare has not made it.
        """
        ...

    def training_data(
        self,
        batch_size: int,
        seed: int,
        *,
        stream_sizes: tuple[int, ...] | None = None,
        device: torch.device | None = None,
        val: Split | None = None,
    ) -> TrainingData:
        """Return batches to train on.

        Args:
            stream_sizes: make samples on `device` as training goes, of these image sizes in turn; None: stored ones.
            val: takes the place of the val split.
        """
        ...

    def output_scales(self) -> list[float]:
        """Return the standard deviation of each head's outputs.

        AdamW's step does not depend on the gradient's scale, so a head whose outputs are small takes steps that are
        smaller by the same factor.
        """
        ...

    def output_weights(self, outputs: Float[Tensor, "count outputs"]) -> Float[Tensor, " outputs"]:
        """Return weights that turn squared errors of outputs into what matters, given a teacher's outputs."""
        ...

    def errors(self, predicted: Tensor, target: Tensor) -> dict[str, Float[Tensor, " batch"]]:
        """Measure each sample by every measure of the task, from outputs (B,outputs)."""
        ...

    def terms(self, names: Sequence[str]) -> Mapping[str, nn.Module]:
        """Build the training's error terms, modules that are `SampleError`s; each is 1 for the mean output.

        Raises:
            ConfigError: there is no term of that name.
        """
        ...

    def whole_error(self) -> nn.Module:
        """Build one error term that sums up how wrong a sample is."""
        ...

    def deviation_from(self, outputs: Tensor, image_size: int) -> Callable[[Tensor], Deviation]:
        """Return what measures outputs (B,outputs) against these."""
        ...


class TaskNetwork(Protocol):
    """Which network a task has: all that reading a bundle needs.

    Attributes:
        outputs: what the network answers with.
        any_size: whether it reads images of any size; otherwise of `data.image_size` alone.
    """

    outputs: Layout
    any_size: bool

    def build(self, widths: Mapping[str, tuple[int, int]] | None = None) -> nn.Module:
        """Build the network, freshly initialized.

        Args:
            widths: (inputs, outputs) of each convolution and linear layer, of a pruned network; None: as designed.

        Raises:
            ValueError: the widths are not this network's.
        """
        ...


def network_of(task: str, sha256: str | None = None) -> TaskNetwork:
    """Import what builds the network of a task.

    Args:
        task: a name in `leanface.catalog.TASKS`, or FILE.py:CLASS.
        sha256: what the file's digest must be.

    Raises:
        ConfigError: there is no such task, its file cannot be run, or has another digest.
    """
    return class_of(TASKS.get(task, task), sha256)()


def class_of(address: str, sha256: str | None = None) -> type:
    """Import a class by MODULE:CLASS or FILE.py:CLASS; for arguments and errors see `network_of`."""
    where, _, name = address.partition(":")
    if not name:
        known = ", ".join(TASKS)
        raise ConfigError(
            f"there is no task {address!r}.{did_you_mean(address, TASKS)} Use {known}, or path/to/my_task.py:MyTask."
        )
    module = importlib.import_module(where) if where.startswith("leanface.") else _run_file(Path(where), sha256)
    found = getattr(module, name, None)
    if not isinstance(found, type):
        own = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
        classes = [value.__name__ for value in own if isinstance(value, type)]
        raise ConfigError(
            f"{where} has no class {name}.{did_you_mean(name, classes)} It has {', '.join(classes) or 'none'}; name "
            f"one as task: {where}:CLASS."
        )
    return found


def task_digest(task: str) -> str | None:
    """Hash the file of a task that is one; None for LeanFace's own.

    Raises:
        ConfigError: the file cannot be read.
    """
    return None if task in TASKS else hashlib.sha256(_read(Path(task.partition(":")[0]))).hexdigest()


def _run_file(path: Path, sha256: str | None) -> ModuleType:
    source = _read(path)
    if sha256 is not None and sha256 != hashlib.sha256(source).hexdigest():
        raise ConfigError(f"{path} has changed since: what was made with it fits it no longer. Run `dvc repro` again.")
    spec = importlib.util.spec_from_loader(f"leanface_task_{path.stem}", loader=None, origin=str(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    try:
        exec(compile(source, str(path), "exec"), vars(module))
    except Exception as error:
        line = getattr(error, "lineno", None) or _line_in(error, str(path))
        raise ConfigError(f"{path}, line {line}: {type(error).__name__}: {error}") from None
    return module


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the task's file {path} cannot be read ({error.strerror}).") from None


def _line_in(error: BaseException, file: str) -> int | None:
    """Find the last line of a file that an error passed through."""
    trace, found = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            found = trace.tb_lineno
        trace = trace.tb_next
    return found
