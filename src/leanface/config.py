"""The resolved configuration: one frozen model per section; unknown keys and out-of-range values are refused.

`leanface stage configure` writes it to reports/config.yaml from params.yaml and conf/; every other stage reads
its own section of that file. Units are in the names.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from leanface.catalog import RUNTIMES
from leanface.errors import ArtifactError, ConfigError, did_you_mean

FACE = "face"
"""The task whose configuration has sections of its own."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NonNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Temperature = Annotated[float, Field(ge=0.01, le=1e6)]
"""Beyond these limits softened distributions are one-hot or uniform to within rounding."""
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""NumPy's generator takes 32 bits."""
AnySize = Annotated[int, Field(ge=8, le=1024)]
"""Height and width of a network's images in pixels."""
ImageSize = Annotated[int, Field(ge=64, le=448, multiple_of=16)]
"""What the face's network reads."""


class Section(BaseModel):
    """Base of every section: immutable, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TaskChoice(Section):
    """What the networks are for.

    Attributes:
        name: in leanface.catalog.TASKS, or a user's own FILE.py:CLASS.
        name_sha256: of that file; stage configure fills it in, so that stages run again when the file has changed.
    """

    name: str
    name_sha256: str | None = None


class Samples(Section):
    """Stage prepare: how large images are, and how many there may be of each split.

    Attributes:
        image_size: stage configure takes it from the task, if that has one size alone.
        train_count: at most; None: all there are. The others likewise.
    """

    image_size: AnySize
    train_count: Count | None = None
    val_count: Count | None = None
    test_count: Count | None = None


class PhotoFolder(Section):
    """A user's own photos, which have no labels, in place of rendered faces.

    Attributes:
        path_sha256: of the files' names and sizes; stage configure fills it in, as all keys of this kind.
    """

    path: str
    path_sha256: str | None = None
    faces: Literal["largest", "all"]
    val_share: Annotated[float, Field(gt=0.0, le=0.4)]
    test_share: Annotated[float, Field(gt=0.0, le=0.4)]


class Data(Samples):
    """Stage prepare: which morphable model; how many faces are rendered, how large, and how wild, or whose photos."""

    morphable_model: str = "packaged"
    morphable_model_sha256: str | None = None
    folder: PhotoFolder | None = None
    image_size: ImageSize
    train_count: Count  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
    val_count: Count  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
    test_count: Count  # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
    images_per_identity: Count
    supersample: Annotated[int, Field(ge=1, le=4)]
    yaw_max_rad: Annotated[float, Field(ge=0.0, le=1.2)]
    coefficient_clip: Positive
    augment: Fraction
    photos: Annotated[tuple[str, ...], Field(min_length=1)]


class Optimizer(Section):
    """Linear warm-up and cosine decay; an exponential moving average of the weights is what is kept.

    Attributes:
        algorithm: "muon" orthogonalizes the updates of convolutions; heads, biases and norms are AdamW's in any case.
    """

    algorithm: Literal["adamw", "muon"]
    steps: Count
    batch_size: Count
    learning_rate: Positive
    warmup_fraction: Fraction
    weight_decay: NonNegative
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)]
    gradient_clip: Positive


class Measure(Section):
    """What stage teacher measures beside one reading of each test face."""

    sizes: Annotated[tuple[ImageSize, ...], Field(min_length=1)]
    faces_per_size: Count
    jitter_count: Annotated[int, Field(ge=2)]
    contrast_count: Count
    picture_count: Count


class Original(Section):
    """Stage teacher: where the original network comes from: trained here, or a bundle's folder."""

    source: Literal["trained", "checkpoint"]
    path: str | None
    path_sha256: str | None = None
    optimizer: Optimizer


class Teacher(Original):
    """Stage teacher, of the face: where the original network comes from."""

    source: Literal["pretrained", "trained", "modelscope", "checkpoint"]  # pyright: ignore[reportIncompatibleVariableOverride]
    streamed: bool
    image_sizes: tuple[ImageSize, ...]
    width: Annotated[float, Field(gt=0.0, le=1.0)]
    photometric_weight: NonNegative
    start_from: str | None
    start_from_sha256: str | None = None
    freeze_batch_norm: bool
    piece_seconds: Positive | None
    measure: Measure


class Analyze(Section):
    """Stage analyze: the sensitivity of the outputs, for so many faces, or other samples, of the train split.

    A group of coupled channels is pruned at each of `ratios`.
    """

    face_count: Count
    ratios: Annotated[tuple[Annotated[float, Field(gt=0.0, lt=1.0)], ...], Field(min_length=1)]


class Importance(Section):
    """A pruning criterion: its name in leanface.pruning.importance.IMPORTANCES and its keyword arguments."""

    name: str
    options: dict[str, float | int | str | bool]


class Target(Section):
    """What share of the original's multiply-accumulates a pruned network may cost."""

    macs: Share


class Search(Section):
    """Stage search: what the compressed network may cost and how wrong it may be; without targets it does nothing.

    Attributes:
        targets: limits by measure: `latency_ms`, `images_per_second`, `size_mb`, `memory_mb`, `energy_mj`, or an error
            of the task, as `vertex_mm`; an error with a sign, as "+0.2", is relative to the original's.
        runtime: that the network is deployed in.
        precision: in which it is deployed.
        batch: images per call.
        threads: on the CPU.
        networks: random ones that are timed for the latency model.
        faces: samples of the train split that each case is re-fitted on.
        cases: architectures that are re-fitted and measured.
        candidates: the best of them, which are re-fitted on more samples and timed; the uniform one is among them.
    """

    targets: dict[str, float | str]
    runtime: str
    precision: Literal["fp32", "fp16", "int8"]
    batch: Count
    threads: Count
    networks: Annotated[int, Field(ge=6)]
    faces: Count
    cases: Count
    candidates: Count

    @model_validator(mode="after")
    def _runs_there(self) -> Self:
        if self.runtime not in RUNTIMES:
            raise ValueError(f"there is no runtime {self.runtime!r}; use one of {', '.join(RUNTIMES)}")
        able = [name for name, each in RUNTIMES.items() if self.precision in each.precisions and each.reads != "engine"]
        if self.runtime not in able:
            raise ValueError(
                f"{self.runtime} does not run {self.precision} networks as they are exported; use {', '.join(able)}, "
                "or another precision"
            )
        return self


class Prune(Section):
    """Stage prune: which channels go, and how the rest is re-fitted."""

    ratio: Annotated[float, Field(ge=0.0, le=0.95)]
    target: Target | None = None
    importance: Importance
    gradient_count: Annotated[int, Field(ge=2)] = 64
    round_to: Count
    compensate: bool
    calibration_count: Count
    position_share: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    ridge: Positive


class Distill(Section):
    """Stage distill: the pruned network learns from the teacher.

    Attributes:
        temperature: T. Of a classifier it softens the classes' probabilities; of the face's attentive imitation the
            weights of samples, so that larger treats them more alike.
        alpha: weight of the labels; 1 - alpha weighs the teacher's outputs.
        imitation: how much the teacher's own error decides how much a sample counts; 0: all alike.
        terms: weights of the task's error terms, against the teacher and against labels alike.
    """

    temperature: Temperature
    alpha: Fraction
    imitation: Fraction
    terms: dict[str, NonNegative]
    streamed: bool
    image_sizes: Annotated[tuple[AnySize, ...], Field(min_length=1)]
    freeze_batch_norm: bool
    start_from: str | None
    start_from_sha256: str | None = None
    optimizer: Optimizer

    @model_validator(mode="after")
    def _some_term(self) -> "Distill":
        if not any(self.terms.values()):
            raise ValueError("need at least one weight above 0 in distill.terms")
        return self


class Budget(Section):
    """What the INT8 network may cost; layers are kept in floating point until it is met.

    Attributes:
        error: the largest mean of each measure, by its name in the task's errors, on validation samples against the
            network that is quantized.
        latency: the longest time for one image in ms, on this machine's CPU.
    """

    error: dict[str, Positive] = {}
    latency: Positive | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if not self.error and self.latency is None:
            raise ValueError("a budget needs error (limits by measure, as {vertex_mm: 0.1}), latency (ms), or both")
        return self


class Quantize(Section):
    """Stage quantize: INT8 by calibration alone (ptq), or trained on from there (qat)."""

    method: Literal["ptq", "qat"]
    calibration: Literal["max", "percentile"]
    calibration_count: Count
    rounding: Literal["nearest", "gptq"]
    quantize_residual: bool
    keep_fp16: tuple[str, ...]
    budget: Budget | None
    optimizer: Optimizer


class Export(Section):
    """Stage export: ONNX files and how closely they must agree with PyTorch (relative L2 norm of the output).

    Attributes:
        dynamic_size: whether a file takes images of any size, or of the size alone that its network was made for.
    """

    opset: Annotated[int, Field(ge=17, le=23)]
    dynamic_size: bool
    parity_count: Count
    tolerance_fp32: Positive
    tolerance_fp16: Positive
    tolerance_int8: Positive


class Build(Section):
    """Stage build: TensorRT engines, their optimization profile, and where else they may run.

    Attributes:
        image_size_min: of the optimization profile (px), and image_size_max likewise; None: only the size that the
            network was made for, which is what the engine is optimized for anyway.
        hardware_compatible: "ampere_plus" or "same_compute_capability" give up speed to run on other GPUs too; full
            TensorRT only, for TensorRT-RTX's engines run on every GPU that it knows.
        version_compatible: a later TensorRT may load the engine; needs TensorRT's lean runtime.
        weights: "refittable" weights can be replaced in the engine; "stripped" ones must be, from the ONNX file.
        timing_cache: remember kernels' times from build to build; full TensorRT only, TensorRT-RTX times none.
        targets: of TensorRT-RTX: "auto" builds for the GPU in this machine where TensorRT-RTX knows it, and otherwise
            as "portable" does, for all GPUs that it knows; or their compute capabilities, as [SM89, SM120].
    """

    batch_min: Count
    batch_opt: Count
    batch_max: Count
    image_size_min: ImageSize | None = None
    image_size_max: ImageSize | None = None
    workspace_mib: Count
    builder_level: Annotated[int, Field(ge=0, le=5)]
    hardware_compatible: Literal["none", "ampere_plus", "same_compute_capability"]
    version_compatible: bool
    weights: Literal["fixed", "refittable", "stripped"]
    timing_cache: bool
    targets: Literal["auto", "portable"] | tuple[str, ...] = "auto"

    @model_validator(mode="after")
    def _ordered(self) -> "Build":
        if not self.batch_min <= self.batch_opt <= self.batch_max:
            raise ValueError("need batch_min <= batch_opt <= batch_max")
        return self


Gates = dict[Annotated[str, Field(pattern=r"^[a-z]\w*_(min|max)$")], NonNegative]
"""Limits of the INT8 network's measures for the report to call the run a success, as MEASURE_min or MEASURE_max."""


class Evaluate(Section):
    """Stage evaluate: the proof against the original."""

    count: Count
    picture_count: Count
    gates: Gates


class FaceEvaluate(Evaluate):
    """Stage evaluate, of the face."""

    uv_size: Annotated[int, Field(ge=32, le=1024)]


class Benchmark(Section):
    """Stage benchmark: latency, throughput, memory and energy on this machine.

    Attributes:
        runtimes: all that can run here, or those of a GPU alone.
        streams: how many batches run at the same time; more than 1 for the networks that are deployed.
        concurrent_batches: the sizes at which more than one does.
        window: runs per window.
        windows_max: windows of each network at most.
        interval: how wide the 95 % interval of a speed-up may be, its upper end over its lower one, less 1, for a
            network to need no more windows.
        energy_seconds: how long each network runs for its energy to be counted, where there is a counter.
        seconds: time limit; remaining measurements are skipped. None for no limit.
    """

    runtimes: Literal["all", "gpu"] = "all"
    batches: tuple[Count, ...]
    streams: tuple[Count, ...]
    warmup: Count
    window: Count
    windows_max: Annotated[int, Field(ge=6)]  # fewer pairs give no 95 % interval, see leanface.metrics.ratio
    interval: Positive
    threads: Count
    energy_seconds: Positive
    concurrent_batches: tuple[Count, ...] | None = None
    seconds: Positive | None = None

    @model_validator(mode="after")
    def _single(self) -> "Benchmark":
        if 1 not in self.batches or 1 not in self.streams:
            raise ValueError("need batch 1 and 1 stream, which every speed-up is measured at")
        return self


class Machine(Section):
    """How training uses this machine; what it computes does not depend on it beyond rounding."""

    accelerator: Literal["auto", "cpu", "gpu"]
    devices: Count
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
    threads: Annotated[int, Field(ge=0)]
    compile: bool


class Config(Section):
    """Everything that an experiment depends on, whatever its networks are for."""

    scale: str
    seed: Seed
    task: TaskChoice
    machine: Machine
    data: Samples
    teacher: Original
    analyze: Analyze
    search: Search
    prune: Prune
    distill: Distill
    quantize: Quantize
    export: Export
    build: Build
    evaluate: Evaluate
    benchmark: Benchmark

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.export.dynamic_size and (self.build.image_size_min or self.build.image_size_max):
            raise ValueError("engines for several image sizes (build.image_size_*) need export.dynamic_size")
        if self.teacher.source == "checkpoint" and self.teacher.path is None:
            raise ValueError("teacher checkpoint needs teacher.path")
        return self


class FaceConfig(Config):
    """The same for the face, whose data, original and proof have more to choose; it has every key that there is."""

    data: Data  # pyright: ignore[reportIncompatibleVariableOverride]
    teacher: Teacher  # pyright: ignore[reportIncompatibleVariableOverride]
    evaluate: FaceEvaluate  # pyright: ignore[reportIncompatibleVariableOverride]

    @model_validator(mode="after")
    def _agreeing(self) -> Self:
        source, packaged = self.teacher.source, self.data.morphable_model == "packaged"
        if source == "modelscope" and packaged:
            raise ValueError("teacher modelscope reads the Basel Face Model: set data.morphable_model to modelscope")
        if source == "pretrained" and not packaged:
            raise ValueError("teacher pretrained reads the packaged model: set data.morphable_model to packaged")
        if source == "trained" and self.data.folder is not None and not self.teacher.streamed:
            raise ValueError("teacher trained needs labels, which photos lack: set teacher.streamed, or data to faces")
        return self


def parse_config(tree: Mapping[str, Any], source: str = "configuration") -> Config:
    """Validate a plain mapping.

    Raises:
        ConfigError: names each wrong key, what was given and what is allowed.
    """
    task: Any = tree.get("task") or {}
    schema = FaceConfig if task.get("name", FACE) == FACE else Config
    try:
        return schema.model_validate(tree)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {_explain(e, schema)}" for e in error.errors()]
        raise ConfigError(
            f"{source} is not valid:\n" + "\n".join(lines) + "\nFix these keys in params.yaml or conf/."
        ) from None


def fields_of(section: Any) -> dict[str, type[BaseModel] | None] | None:
    """Return the keys of a section with the sections that they hold, if any; None if it is no section itself."""
    if not (isinstance(section, type) and issubclass(section, BaseModel)):
        return None
    found: dict[str, type[BaseModel] | None] = {}
    for name, field in section.model_fields.items():
        # `Target | None` holds a Target.
        kinds = (field.annotation, *get_args(field.annotation))
        found[name] = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return found


def _explain(error: Any, schema: type[Config]) -> str:
    """Say what is wrong with one value, and what was probably meant."""
    if error["type"] == "extra_forbidden":
        *parents, key = error["loc"]
        fields = _section_at(schema, parents)
        return f"unknown key.{did_you_mean(key, fields)} Valid here: {', '.join(fields)}"
    advice = ""
    if error["type"] == "literal_error":
        advice = did_you_mean(error["input"], re.findall(r"'([^']+)'", error["ctx"]["expected"]))
    return f"{error['msg']} (got {error.get('input')!r}).{advice}"


def _section_at(schema: type[Config], parents: Sequence[str | int]) -> dict[str, type[BaseModel] | None]:
    section: Any = schema
    for name in parents:
        section = (fields_of(section) or {}).get(str(name))
    return fields_of(section) or {}


def load_config(path: Path) -> Config:
    """Read a resolved configuration (reports/config.yaml).

    Raises:
        ArtifactError: the file is missing or is not YAML.
        ConfigError: its contents are not valid.
    """
    try:
        tree: Any = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing; run `leanface stage configure` (or `dvc repro`) first.") from None
    except yaml.YAMLError as error:
        raise ArtifactError(f"{path} is not YAML ({error}); rewrite it with `leanface stage configure`.") from None
    if not isinstance(tree, dict):
        raise ArtifactError(f"{path} is empty; rewrite it with `leanface stage configure`.")
    return parse_config(cast(dict[str, Any], tree), str(path))


def load_face_config(path: Path) -> FaceConfig:
    """Read the resolved configuration of the face.

    Raises:
        ArtifactError, ConfigError: as `load_config`, or it is another task's.
    """
    config = load_config(path)
    if not isinstance(config, FaceConfig):
        raise ConfigError(f"{path} is of task {config.task.name}; this is for the face alone: set `task: face`.")
    return config
