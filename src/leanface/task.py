"""What a network is for: the contract between compression and a subject, such as faces.

Pruning, distillation, quantization, training and export know a network's inputs and outputs as tensors only. What an
output means, how wrong it is, and where samples come from is told by a `Task`. The face is the first one
(`leanface.tasks.face`); docs/decisions/0014-task.md says why the line runs here.
"""

import hashlib
import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, Protocol, Self, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.catalog import MEASURES, TASKS, Subject, know
from leanface.config import Benchmark, Config, Evaluate, Machine, Original, Samples, TaskChoice
from leanface.errors import ConfigError, did_you_mean
from leanface.inputs import locate

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


class Terms(NamedTuple):
    """A training's error terms by name, modules that are `SampleError`s, against the teacher and against labels."""

    teacher: Mapping[str, nn.Module]
    labels: Mapping[str, nn.Module]


class Naming(NamedTuple):
    """How pictures name a network's layers.

    Attributes:
        part: the part of the network that a layer, by its name, belongs to.
        label: a short name for a layer.
        kind: one of `kinds`.
        kinds: titles and colors of the kinds of layers.
    """

    part: Callable[[str], str]
    label: Callable[[str], str]
    kind: Callable[[str], str]
    kinds: Mapping[str, tuple[str, str]]


def _top(name: str) -> str:
    return name.partition(".")[0]


def _whole(name: str) -> str:
    return name


def _any_kind(name: str) -> str:
    return ""


PLAIN = Naming(_top, _whole, _any_kind, {"": ("layers", "#0550ae")})
"""For any network."""


class Task(Protocol):
    """What a network's outputs mean.

    Attributes:
        subject: how reports speak of it.
        selection: the key of `errors` by which the best weights of a training are chosen; lower is better.
        naming: how pictures name the teacher's layers.
    """

    subject: Subject
    selection: str
    naming: Naming

    @classmethod
    def load(cls, data: Any) -> Self:
        """Take what stage prepare wrote.

        Args:
            data: section `data` of the configuration.

        Raises:
            ArtifactError: it is missing or damaged.
        """
        ...

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

    def output_scales(self) -> Mapping[str, float]:
        """Return the standard deviation of the outputs of each head, by its module's name; {} if all are near 1.

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

    def terms(self, names: Sequence[str], temperature: float) -> Terms:
        """Build the training's error terms, by the same names against the teacher and against labels.

        Args:
            names: keys of `distill.terms` whose weight is not 0.
            temperature: `distill.temperature`, for terms that soften what they compare.

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
    """Which network a task has: all that reading a bundle needs."""

    @property
    def outputs(self) -> Layout:
        """What the network answers with."""
        ...

    @property
    def any_size(self) -> bool:
        """Whether it reads all sizes from 64 px in multiples of 16; otherwise `data.image_size` alone."""
        ...

    def build(self, widths: Mapping[str, tuple[int, int]] | None = None) -> nn.Module:
        """Build the network, freshly initialized.

        Args:
            widths: (inputs, outputs) of each convolution and linear layer, of a pruned network; None: as designed.

        Raises:
            ValueError: the widths are not this network's.
        """
        ...


Run = Callable[[Float[np.ndarray, "batch 3 H W"]], Float[np.ndarray, "batch outputs"]]
"""A network in any runtime."""

MetricLog = Callable[[Mapping[str, float], int], None]
"""(metrics, step): where live curves go."""


Track = Callable[[str, Mapping[str, Any], Mapping[str, float]], None]
"""(name, parameters, metrics): where runs go that are a part of a stage."""


class MadeTeacher(NamedTuple):
    """A teacher.

    Attributes:
        network: in eval mode.
        license: of its weights; None: not known.
        metrics: what was measured of it.
    """

    network: nn.Module
    license: str | None
    metrics: dict[str, float]


class Scores(NamedTuple):
    """How a network compares with the teacher and with the truth.

    Attributes:
        samples: each measure of each test sample; NaN where it is undefined.
        constant: what always giving the same answer scores.
        photo_names: of samples of another kind, without truth, that were compared as well.
        photos: each measure of these.
    """

    samples: dict[str, Float[np.ndarray, " count"]]
    constant: dict[str, float]
    photo_names: tuple[str, ...]
    photos: dict[str, Float[np.ndarray, " count"]]


class Journey(NamedTuple):
    """All that is done with an input, for its time to be measured.

    Attributes:
        whole: goes from an input to a result, through a network.
        before: what is the same for all networks, and not part of it.
    """

    whole: Callable[[Any], object]
    before: Callable[[], object]


class WholeTask(TaskNetwork, Task, Protocol):
    """Everything that the pipeline asks of a user's own task, one class in one file, made without arguments.

    `leanface.tasks.classification.classifier.Classifier` has all of it for classifiers but the network and the samples.

    Attributes:
        image_size: height and width of the images in pixels.
    """

    image_size: int

    def prepare(self, data: Samples, seed: int) -> dict[str, float]:
        """Write the splits to `paths.SAMPLES`, and pictures of them to `paths.PREPARE_REPORT`; return metrics.

        Raises:
            ArtifactError: the samples are not what they have to be.
        """
        ...

    def make_teacher(
        self, settings: Original, data: Samples, machine: Machine, seed: int, log: MetricLog, seconds: float | None
    ) -> "MadeTeacher":
        """Train or load the original network, measure it, and draw pictures in `paths.TEACHER_REPORT`.

        Args:
            seconds: stop after this time with the state saved.

        Raises:
            Unfinished: a training in pieces needs another run.
        """
        ...

    def evaluate(
        self, teacher: Run, student: Run, settings: Evaluate, data: Samples, batch_size: int, folder: Path
    ) -> Scores:
        """Compare a network with the teacher on test samples, and draw `subject.sheets` as PNG files in `folder`."""
        ...

    def journey(self, settings: Benchmark, data: Samples) -> Journey | None:
        """Return what is measured from end to end; None: nothing is done beside running the network."""
        ...


def network_of(task: str, sha256: str | None = None) -> TaskNetwork:
    """Import what builds the network of a task.

    Args:
        task: a name in `leanface.catalog.TASKS`, or FILE.py:CLASS.
        sha256: what the file's digest must be.

    Raises:
        ConfigError: there is no such task, its file cannot be run, or has another digest.
    """
    return cast(TaskNetwork, _part(TaskChoice(name=task, name_sha256=sha256), "network")())


def load_task(choice: TaskChoice, data: Samples) -> Task:
    """Import a task, and let it take what stage prepare wrote."""
    return cast(type[Task], _part(choice, "task")).load(data)


def prepare_of(choice: TaskChoice) -> Callable[[Samples, int], dict[str, float]]:
    """Return `WholeTask.prepare` of a task; the functions below likewise."""
    return _part(choice, "prepare")


def make_teacher_of(choice: TaskChoice) -> Callable[..., MadeTeacher]:
    """Return `WholeTask.make_teacher`."""
    return _part(choice, "make_teacher")


def evaluate_of(choice: TaskChoice) -> Callable[..., Scores]:
    """Return `WholeTask.evaluate`."""
    return _part(choice, "evaluate")


def journey_of(choice: TaskChoice) -> Callable[..., Journey | None]:
    """Return `WholeTask.journey`."""
    return _part(choice, "journey")


def subject_of(choice: TaskChoice) -> Subject:
    """Return how reports speak of a task; its own measures are in `MEASURES` from then on."""
    return TASKS[choice.name].subject if choice.name in TASKS else know(_own(choice).subject)


def adapt(config: Config) -> Config:
    """Check what a configuration says of its task, and fill in the size of the images that a user's own task reads.

    Raises:
        ConfigError: the task cannot be imported or lacks something, or a gate is of a measure that it has not.
    """
    if config.task.name not in TASKS:
        size = _own(config.task).image_size
        config = config.model_copy(update={"data": config.data.model_copy(update={"image_size": size})})
    check_gates(subject_of(config.task), config.evaluate.gates)
    return config


def check_gates(subject: Subject, gates: Mapping[str, float]) -> None:
    """Refuse gates of measures that a task's summary does not have, or that point the wrong way."""
    valid = [f"{name}_{'min' if MEASURES[name].better == 'higher' else 'max'}" for name in subject.summary]
    for gate in gates:
        if gate not in valid:
            raise ConfigError(
                f"evaluate.gates: there is no {gate}.{did_you_mean(gate, valid)} Valid here: {', '.join(valid)}."
            )


def _part(choice: TaskChoice, part: str) -> Any:
    """Import a part of LeanFace's own tasks; of a user's class, take the method, or for the others the class itself."""
    entry = TASKS.get(choice.name)
    if entry is not None:
        module, _, name = cast(str, getattr(entry, part)).partition(":")
        return getattr(importlib.import_module(module), name)
    if part == "network":
        return class_of(choice.name, choice.name_sha256)
    task = _own(choice)
    return type(task) if part == "task" else getattr(task, part)


def _own(choice: TaskChoice) -> WholeTask:
    """Make an instance of a user's class.

    Raises:
        ConfigError: it lacks something that a task must have.
    """
    kind = class_of(choice.name, choice.name_sha256)
    try:
        task = kind()
    except Exception as error:
        raise ConfigError(f"{choice.name}() cannot be made: {type(error).__name__}: {error}") from None
    needed = [*_members(Task), *_members(TaskNetwork), *_members(WholeTask)]
    if missing := [name for name in dict.fromkeys(needed) if not hasattr(task, name)]:
        raise ConfigError(
            f"{choice.name} has no {', '.join(missing)}: derive it from "
            "leanface.tasks.classification.classifier.Classifier, or see leanface.task.WholeTask."
        )
    return task


def _members(protocol: type) -> list[str]:
    methods = [name for name in vars(protocol) if not name.startswith("_")]
    return [*methods, *inspect.get_annotations(protocol)]


def class_of(address: str, sha256: str | None = None) -> type:
    """Import a class by FILE.py:CLASS; for arguments and errors see `network_of`."""
    where, _, name = address.partition(":")
    if not name and not where.endswith(".py"):
        known = ", ".join(TASKS)
        raise ConfigError(
            f"there is no task {address!r}.{did_you_mean(address, TASKS)} Use {known}, or path/to/my_task.py:MyTask."
        )
    module = _run_file(locate(where), sha256)
    found = getattr(module, name, None)
    if not isinstance(found, type):
        own = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
        classes = [value.__name__ for value in own if isinstance(value, type)]
        what = (
            f"{where} has no class {name}.{did_you_mean(name, classes)}" if name else f"{where} is a file, not a class."
        )
        raise ConfigError(f"{what} It has {', '.join(classes) or 'none'}; name one as task: {where}:CLASS.")
    return found


def task_digest(task: str) -> str | None:
    """Hash the file of a task that is one; None for LeanFace's own.

    Raises:
        ConfigError: the file cannot be read.
    """
    return None if task in TASKS else hashlib.sha256(_read(locate(task.partition(":")[0]))).hexdigest()


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
