"""Name every network variant, runtime and measure once; report, comparison, tracking, benchmark and bench read it here.

A new variant, runtime or measure is one entry. Order matters: variants go from the teacher to the smallest student,
runtimes from the best to the last, and tables show measures in the order given.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from leanface import paths

DASH = "\N{EN DASH}"
"""Stands for an unknown number."""

TIMES = "\N{MULTIPLICATION SIGN}"
PERCENT = "%"

Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class Variant:
    """One network in one precision.

    Attributes:
        title: what reports call it.
        bundle: what it is exported from.
        color: in every picture.
        evaluated: has an engine, is evaluated, and benchmarked on every machine; otherwise only a GPU's benchmark reads
            it.
        concurrent: also benchmarked with several streams, as it would be deployed.
        flavor: of an INT8 file, as in `leanface.networks.interface`; `cpu` is not for GPUs, and has no engine.
    """

    title: str
    precision: Precision
    bundle: Path
    color: str
    evaluated: bool = True
    concurrent: bool = False
    flavor: Literal["cpu", "tensorrt"] | None = None


VARIANTS = {
    "teacher_fp32": Variant("Original", "fp32", paths.TEACHER, "#57606a"),
    "distilled_fp32": Variant("Light", "fp32", paths.DISTILLED, "#0969da"),
    "distilled_fp16": Variant("Light FP16", "fp16", paths.DISTILLED, "#8250df", concurrent=True),
    "cpu_int8": Variant("Light INT8 for CPUs", "int8", paths.QUANTIZED, "#9a6700", flavor="cpu"),
    "quantized_int8": Variant("Light INT8", "int8", paths.QUANTIZED, "#1a7f37", concurrent=True, flavor="tensorrt"),
    "teacher_fp16": Variant("Original FP16", "fp16", paths.TEACHER, "#bf8700", evaluated=False),
}
"""Every exported network, by the name of its files and stages."""

EVALUATED = tuple(name for name, variant in VARIANTS.items() if variant.evaluated)

ENGINES = tuple(name for name in EVALUATED if VARIANTS[name].flavor != "cpu")
"""What TensorRT engines are built of."""

BASELINE = "teacher_fp32"
"""What every ratio is relative to."""

DEPLOYED = "quantized_int8"
"""What the gates are about, and what runs wherever nothing better does."""

DEPLOYED_ON_CPU = "cpu_int8"
"""The same network for processors that compute its flavor exactly."""


@dataclass(frozen=True)
class RuntimeEntry:
    """One way to run a network.

    Attributes:
        title: what reports call it.
        reads: a bundle, an ONNX file or an engine.
        precisions: the variants that it is measured with, by their precision. It may refuse one with a reason.
        implementation: MODULE:CLASS, imported when it is first opened.
        dash: of its lines in pictures.
    """

    title: str
    reads: Literal["bundle", "onnx", "engine"]
    precisions: tuple[Precision, ...]
    implementation: str
    on_gpu: bool = False
    dash: str | tuple[int, tuple[int, ...]] = "-"


ANY_PRECISION: tuple[Precision, ...] = ("fp32", "fp16", "int8")

RUNTIMES = {
    "triton_int8": RuntimeEntry(
        "Triton INT8", "onnx", ("int8",), "leanface.runtime.triton_:TritonInt8Runtime", on_gpu=True
    ),
    "torch_cuda_graph": RuntimeEntry(
        "PyTorch, CUDA graph", "bundle", ("fp16",), "leanface.runtime.torch_:TorchGraphRuntime", on_gpu=True, dash="--"
    ),
    "onnxruntime_cuda": RuntimeEntry(
        "ONNX Runtime, CUDA", "onnx", ANY_PRECISION, "leanface.runtime.onnxruntime_:OnnxRuntimeCuda", on_gpu=True,
        dash="-.",
    ),
    "tensorrt": RuntimeEntry(
        "TensorRT", "engine", ANY_PRECISION, "leanface.runtime.tensorrt_:TensorRtRuntime", on_gpu=True, dash=(0, (1, 1))
    ),
    "openvino": RuntimeEntry("OpenVINO", "onnx", ANY_PRECISION, "leanface.runtime.openvino_:OpenVinoRuntime"),
    "onnxruntime": RuntimeEntry("ONNX Runtime", "onnx", ANY_PRECISION, "leanface.runtime.onnxruntime_:OnnxRuntime"),
    "torch_cuda": RuntimeEntry(
        "PyTorch, CUDA", "bundle", ("fp32",), "leanface.runtime.torch_:TorchCudaRuntime", on_gpu=True
    ),
    "torch": RuntimeEntry("PyTorch", "bundle", ("fp32",), "leanface.runtime.torch_:TorchRuntime"),
}  # fmt: skip
"""By name, the best first.

A GPU comes before the CPU, and what was measured to be faster first (docs/results/h200 and h100); TensorRT was not
measured. On the CPU OpenVINO comes first, which alone computes the INT8 file in INT8.
"""


def readers_of(kind: Literal["bundle", "onnx", "engine"]) -> tuple[str, ...]:
    """Name the runtimes that read such a network, the best first."""
    return tuple(name for name, entry in RUNTIMES.items() if entry.reads == kind)


BASELINE_RUNTIMES = ("torch_cuda", "torch")
"""The baseline runs in PyTorch: on the GPU where there is one, for a GPU is not to be compared with a processor."""

PARTS = {"landmarks": "Finding the face and its landmarks", "mtcnn": "BlazeFace"}
"""What is neither a variant nor a runtime, but is measured beside them."""


def variant_title(name: str) -> str:
    """Return what reports call a variant, or a part that is measured beside them."""
    return VARIANTS[name].title if name in VARIANTS else PARTS.get(name, name)


def runtime_title(name: str) -> str:
    """Return what reports call a runtime."""
    return RUNTIMES[name].title if name in RUNTIMES else PARTS.get(name, name)


@dataclass(frozen=True)
class Measure:
    """One number that is measured.

    Attributes:
        title: what reports call it, without its unit.
        unit: "" for none.
        better: which way is better.
        definition: one sentence.
        short: a title for narrow tables.
        decimals: digits after the point; None: three significant digits.
        scale: what a value is divided by to be shown in `unit`.
        against: what a network is compared with, on test faces; None for what a network costs.
        exact: counted, not sampled, so it has no interval.
    """

    title: str
    unit: str
    better: Literal["higher", "lower"]
    definition: str
    short: str = ""
    decimals: int | None = None
    scale: float = 1.0
    against: Literal["teacher", "truth"] | None = None
    exact: bool = False

    @property
    def heading(self) -> str:
        """Title and unit."""
        return _with_unit(self.title, self.unit)

    @property
    def short_heading(self) -> str:
        """Short title and unit, for narrow tables."""
        return _with_unit(self.short or self.title, self.unit)

    @property
    def axis(self) -> str:
        """Short title and unit, for an axis whose numbers have no unit."""
        title = self.short or self.title
        return f"{title} ({self.unit})" if self.unit else title

    @property
    def full_heading(self) -> str:
        """Title, what it is against, and unit."""
        to = {"teacher": " to the original", "truth": " to ground truth", None: ""}[self.against]
        return _with_unit(self.title + to, self.unit)

    def text(self, value: float | None) -> str:
        """Round a value for a reader; a dash for None."""
        if value is None:
            return DASH
        shown = value / self.scale
        text = number(shown) if self.decimals is None else f"{shown:.{self.decimals}f}"
        return text + {TIMES: TIMES, PERCENT: f" {PERCENT}"}.get(self.unit, "")

    def interval_text(self, interval: tuple[float, float] | None) -> str:
        """Round a 95 % interval for a reader; "" for None."""
        return "" if interval is None else f"{self.text(interval[0])} {DASH} {self.text(interval[1])}"


def _with_unit(title: str, unit: str) -> str:
    return title if unit in ("", TIMES, PERCENT) else f"{title} ({unit})"


def _similarity(title: str, definition: str, *, error: bool = False) -> Measure:
    if error:
        return Measure(title, "", "lower", definition, against="teacher")
    # What counts is the distance to 1, which three digits would hide.
    return Measure(title, "", "higher", definition, decimals=4, against="teacher")


_SIMILARITIES = {
    "ssim": _similarity("UV SSIM", "SSIM of the texture and position maps, against the original's: the mean of both"),
    "ssim_texture": _similarity("UV texture SSIM", "SSIM of the albedo maps over the face, against the original's"),
    "ssim_position": _similarity("UV position SSIM", "SSIM of the maps of vertex positions, against the original's"),
    "ssim_render": _similarity("Re-rendered SSIM, whole frame", "SSIM of the re-rendered faces on black"),
    "ssim_face": _similarity("Re-rendered SSIM, face region", "SSIM of the re-rendered faces where the face is"),
    "mse": _similarity("Re-rendered MSE", "MSE of the re-rendered faces on black, against the original's", error=True),
    "mse_face": _similarity(
        "Re-rendered MSE, face region", "MSE of the re-rendered faces where the face is", error=True
    ),
    "mse_texture": _similarity("UV texture MSE", "MSE of the albedo maps over the face", error=True),
    "mse_position": _similarity("UV position MSE", "MSE of the maps of vertex positions", error=True),
}

_ERRORS = {
    "vertex_mm": ("Vertex error", "mm", "mean distance of the face's vertices, without pose"),
    "posed_mm": ("Posed vertex error", "mm", "mean distance of the face's vertices after rotation"),
    "identity_mm": ("Identity error", "mm", "RMS vertex displacement by the identity coefficients alone"),
    "expression_mm": ("Expression error", "mm", "RMS vertex displacement by the expression coefficients alone"),
    "rotation_deg": ("Rotation error", "degrees", "angle between the two poses"),
    "translation_mm": ("Translation error", "mm", "distance between the two positions"),
    "albedo_levels": ("Albedo error", "levels of 255", "RMS color difference of the skin"),
    "nme": ("NME", "% of eye distance", "vertex error over the distance between the eyes"),
}
"""Errors of geometry: title, unit, definition. Each is taken against the teacher and against ground truth."""


def _against(reference: Literal["teacher", "truth"], name: str) -> Measure:
    title, unit, definition = _ERRORS[name]
    which = {"teacher": "to the original", "truth": "to ground truth"}[reference]
    short = {"teacher": "To original", "truth": "Error"}[reference] if name == "vertex_mm" else ""
    return Measure(title, unit, "lower", f"{definition}, {which}", short, against=reference)


CLASSIFICATION_MEASURES = {
    "accuracy": Measure(
        "Accuracy", "%", "higher", "share of the images whose class is right", decimals=2, scale=0.01, against="truth"
    ),
    "truth_error": Measure(
        "Error rate", "%", "lower", "share of the images whose class is wrong", "Error", 2, 0.01, against="truth"
    ),
    "truth_kl": Measure("Cross-entropy", "nats", "lower", "of the true classes, under the answers", against="truth"),
    "calibration_error": Measure(
        "Calibration error", "%", "lower",
        "mean distance of the confidence from the accuracy, in 10 bins of confidence (ECE); its interval takes each "
        "bin's distance as known",
        decimals=2, scale=0.01, against="truth",
    ),
    "teacher_agreement": Measure(
        "Agreement", "%", "higher", "share of the images to which both networks give the same class", decimals=2,
        scale=0.01, against="teacher",
    ),
    "teacher_error": Measure(
        "Disagreement", "%", "lower", "share of the images to which the networks give different classes", decimals=2,
        scale=0.01, against="teacher",
    ),
    "teacher_kl": Measure(
        "KL divergence", "nats", "lower", "of the answer from the original's, over the classes", "KL to original",
        against="teacher",
    ),
}  # fmt: skip
"""What every classifier is measured by."""


MEASURES = {
    **_SIMILARITIES,
    **{f"teacher_{name}": _against("teacher", name) for name in _ERRORS},
    **{f"truth_{name}": _against("truth", name) for name in _ERRORS},
    **CLASSIFICATION_MEASURES,
    "speedup": Measure(
        "Times faster", TIMES, "higher",
        "images per second over those of the original in PyTorch FP32, in pairs of windows measured in turns",
        short="Faster",
    ),
    "throughput_ratio": Measure(
        "Times the throughput", TIMES, "higher", "the same at the largest batch, with as many streams as is best"
    ),
    "size_ratio": Measure(
        "Times smaller", TIMES, "higher", "size of the original's ONNX file over this one's", short="Smaller",
        exact=True,
    ),
    "energy_ratio": Measure(
        "Times less energy per image", TIMES, "higher", "the original's energy per image over this one's"
    ),
    "latency_ms": Measure("Latency", "ms", "lower", "median time of one call, the network alone"),
    "images_per_second": Measure("Images/s", "", "higher", "images of all streams together"),
    "size_mb": Measure("File", "MB", "lower", "size of the ONNX file (10^6 bytes)", exact=True),
    "memory_mb": Measure("Memory", "MB", "lower", "what a fresh process grows by when it opens and runs the network"),
    "macs": Measure(
        "MACs", "million", "lower", "multiply-accumulate operations for one image", scale=1e6, exact=True
    ),
    "cold_start_ms": Measure("Cold start", "ms", "lower", "from opening the file to its first result"),
    "energy_mj": Measure("Energy", "mJ per image", "lower", "of the whole processor package or GPU"),
}  # fmt: skip
"""By the one name that a number has in every file, table and run."""

_COSTS = (
    "macs", "size_mb", "size_ratio", "latency_ms", "speedup", "throughput_ratio", "memory_mb", "energy_ratio",
)  # fmt: skip
"""What reports/summary.json has of each variant of any task."""

_COST_HEADLINE = ("speedup", "latency_ms", "size_ratio", "size_mb")


@dataclass(frozen=True)
class Subject:
    """How reports, comparisons and MLflow speak of a task.

    Attributes:
        sample: one of what its networks read.
        samples: several of them.
        error: the error to ground truth by which networks are compared; lower is better.
        teacher_error: the error to the teacher, which takes its place where there are no labels.
        likeness: how alike a network and the teacher are.
        quality: what reports/summary.json has of each variant, beside its costs.
        quality_headline: what a run is judged by at a glance, beside its costs.
        steps: what is shown after each step of the compression.
        verdict: the last words of a run, with measures in braces.
        constant: who always gives the same answer.
        picture: of a folder of stage evaluate: the one that stands for the run.
        pictures: captions of those pictures of stages prepare and teacher, in `leanface.report.sources`, that it has.
        sheets: the pictures of such a folder, by file name without suffix, and what each shows.
        templates: folder of its report and model card; None: the general ones.
        curves: panels of a training's picture: unit, and the columns of history.csv with their labels.
        damages: title of each measure of a `Deviation` in pictures, and the least that is shown of it.
        measures: those that `MEASURES` lacks; see `know`.
    """

    sample: str
    samples: str
    error: str
    teacher_error: str
    likeness: str
    quality: tuple[str, ...]
    quality_headline: tuple[str, ...]
    steps: tuple[str, ...]
    verdict: str
    constant: str
    picture: str
    pictures: Mapping[str, str]
    sheets: Mapping[str, str]
    curves: Mapping[str, tuple[tuple[str, str], ...]]
    damages: Mapping[str, tuple[str, float]]
    templates: str | None = None
    measures: Mapping[str, Measure] = field(default_factory=dict[str, Measure])

    @property
    def summary(self) -> tuple[str, ...]:
        """What reports/summary.json has of each variant."""
        return (*self.quality, *_COSTS)

    @property
    def headline(self) -> tuple[str, ...]:
        """What a run is judged by at a glance, of the deployed network: reports/metrics.json."""
        return (*self.quality_headline, *_COST_HEADLINE)


LOSS_CURVE = {"loss": (("train/loss", "training loss"),)}

FACE = Subject(
    sample="face",
    samples="faces",
    error="truth_vertex_mm",
    teacher_error="teacher_vertex_mm",
    likeness="ssim",
    quality=("ssim", "ssim_render", "ssim_face", "mse", "truth_vertex_mm", "teacher_vertex_mm"),
    quality_headline=("ssim", "mse", "truth_vertex_mm", "teacher_vertex_mm"),
    steps=("teacher_vertex_mm", "teacher_rotation_deg", "truth_vertex_mm", "truth_rotation_deg"),
    verdict="vertices {teacher_vertex_mm} mm and UV SSIM {ssim} from the original's",
    constant="Mean face",
    picture="faces.png",
    pictures={
        "faces": "Faces and photos, as the networks see them",
        "distributions": "Distributions of the faces",
        "teacher": "What the original network predicts",
        "teacher_errors": "Errors of the original by yaw and by image size",
    },
    sheets={
        "faces": "Test faces (never trained on)",
        "photos": "Real photos (there is no ground truth, only the comparison)",
        "worst": "The faces on which it is least like the original",
        "heatmap": "Where on the face it errs",
    },
    curves=LOSS_CURVE
    | {
        "mm": (("val/identity_mm", "identity"), ("val/expression_mm", "expression"), ("val/vertex_mm", "vertices")),
        "degrees": (("val/rotation_deg", "rotation"),),
        "levels of 255": (("val/albedo_levels", "albedo"),),
    },
    damages={"vertex_mm": ("vertex error (mm)", 1e-3), "ssim": ("1 - SSIM, rendered face", 1e-5)},
    templates="tasks/face",
)

CLASSIFICATION = Subject(
    sample="image",
    samples="images",
    error="truth_error",
    teacher_error="teacher_kl",
    likeness="teacher_agreement",
    quality=("accuracy", "truth_error", "truth_kl", "calibration_error", "teacher_agreement", "teacher_kl"),
    quality_headline=("accuracy", "truth_error", "teacher_agreement", "teacher_kl"),
    steps=("teacher_kl", "teacher_error", "truth_kl", "truth_error"),
    verdict="accuracy {accuracy}, and the original's class for {teacher_agreement} of the images",
    constant="Majority class",
    picture="confusion.png",
    pictures={"faces": "Images of each class, as the networks see them"},
    sheets={
        "confusion": "Which class is taken for which",
        "worst": "The images whose true class it finds least likely",
    },
    curves=LOSS_CURVE
    | {
        "cross-entropy": (("val/kl", "validation"),),
        "error rate": (("val/error", "validation"),),
    },
    damages={
        "kl": ("KL divergence from the original (nats)", 1e-6),
        "error": ("share of images of another class", 1e-3),
    },
)
"""Of every classifier, the user's own too."""


@dataclass(frozen=True)
class TaskEntry:
    """One task of LeanFace's own; each part is MODULE:NAME, imported when it is needed.

    The parts lie apart so that each stage depends on the code of its own part alone. A user's task, FILE.py:CLASS, is
    one class that has all of them.

    Attributes:
        network: a `leanface.task.TaskNetwork`.
        task: a `leanface.task.Task`.
        prepare, make_teacher, evaluate, journey: see `leanface.task.WholeTask`.
    """

    subject: Subject
    network: str
    task: str
    prepare: str
    make_teacher: str
    evaluate: str
    journey: str


TASKS = {
    "face": TaskEntry(
        subject=FACE,
        network="leanface.tasks.face.network:FaceNetwork",
        task="leanface.tasks.face.task:FaceTask",
        prepare="leanface.tasks.face.prepare:prepare",
        make_teacher="leanface.tasks.face.original:make_teacher",
        evaluate="leanface.tasks.face.judgment:evaluate",
        journey="leanface.tasks.face.end_to_end:journey",
    ),
    "digits": TaskEntry(
        subject=replace(CLASSIFICATION, sample="digit", samples="digits"),
        network="leanface.tasks.digits.network:DigitsNetwork",
        task="leanface.tasks.digits.task:DigitsTask",
        prepare="leanface.tasks.digits.prepare:prepare",
        make_teacher="leanface.tasks.digits.teacher:make_teacher",
        evaluate="leanface.tasks.digits.evaluation:evaluate",
        journey="leanface.tasks.classification.journey:no_journey",
    ),
}
"""By the name that params.yaml has for it; a task may also be FILE.py:CLASS."""


def know(subject: Subject) -> Subject:
    """Add the measures of a user's own task to `MEASURES`, by names that are free."""
    for name, measure in subject.measures.items():
        MEASURES.setdefault(name, measure)
    return subject


def measures_against(reference: Literal["teacher", "truth"]) -> dict[str, Measure]:
    """Return what compares a network with the teacher, or with ground truth."""
    return {name: measure for name, measure in MEASURES.items() if measure.against == reference}


def number(value: float | None) -> str:
    """Write three significant digits; a dash for None."""
    if value is None:
        return DASH
    if value == 0:
        return "0"
    if abs(value) < 0.001:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}{TIMES}10{_superscript(int(exponent))}"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".")


def _superscript(exponent: int) -> str:
    digits = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
    return str(exponent).translate(digits)
