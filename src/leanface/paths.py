"""Every artifact's path, once, relative to the project's root (DVC runs each stage from there)."""

from pathlib import Path

SPLITS = ("train", "val", "test")

ASSETS = Path(__file__).parent / "assets"
PACKAGED_MORPHABLE_MODEL = ASSETS / "morphable_model.npz"
PACKAGED_ARKIT_UNITS = ASSETS / "morphable_model_arkit.json"
"""ARKit's blendshapes as coefficients of that model, by tools/face_model/arkit.py."""
PRETRAINED_TEACHER = ASSETS / "teacher.npz"
PRETRAINED_TEACHER_224 = ASSETS / "teacher_224.npz"
"""For images from 160 px: more accurate at every size, but a short training at 112 px follows the other one better (see
docs/results/teacher/README.md)."""
PACKAGED_MODEL = ASSETS / "leanface_int8.onnx"
"""The compressed network that `leanface reconstruct` uses unless told otherwise."""
PACKAGED_CPU_MODEL = ASSETS / "leanface_int8_cpu.onnx"
"""The same in flavor cpu (docs/decisions/0017-flavors.md), if the release has it; its weights are in the other file."""
PACKAGED_STUDENT = ASSETS / "leanface_fp16"
"""The same network before it was quantized, for GPUs and to train on."""
PACKAGED_CARD = PACKAGED_MODEL.with_suffix(".md")
PACKAGED_SCORES = PACKAGED_MODEL.with_suffix(".json")
"""What it scored, and on which faces."""

PARAMS = Path("params.yaml")
CONF = Path("conf")
CACHE = Path(".cache")
"""What can be made again, and is not versioned."""

PIPELINE = Path("dvc.yaml")
REPORTS = Path("reports")
PREPARED = Path("data/prepared")
"""All that stage prepare makes, and what DVC empties before it; the rest of data/ is the user's."""

CONFIG = REPORTS / "config.yaml"
DEVICE = REPORTS / "device.json"

MORPHABLE_MODEL = PREPARED / "morphable_model.npz"
"""The one that this pipeline's coefficients belong to."""

FACES = PREPARED / "faces"
PHOTOS = PREPARED / "photos"
SAMPLES = PREPARED / "samples"
"""What other tasks than the face prepare."""

PREPARE_REPORT = REPORTS / "prepare"

TEACHER = Path("models/teacher")
TEACHER_STATE = Path("models/.teacher.ckpt")
TEACHER_REPORT = REPORTS / "teacher"
ANALYZE_REPORT = REPORTS / "analyze"
ANALYZE_METRICS = ANALYZE_REPORT / "metrics.json"
LAYERS = ANALYZE_REPORT / "layers.json"
LAYERS_PICTURE = ANALYZE_REPORT / "layers.png"
SENSITIVITY = ANALYZE_REPORT / "sensitivity.json"
"""Apart from what stage analyze measures in time, so that stages which read it need not run again with it."""
SENSITIVITY_PICTURE = ANALYZE_REPORT / "sensitivity.png"
SEARCH_CACHE = CACHE / "search"
"""What a search measured, by machine and conditions."""
SEARCH_REPORT = REPORTS / "search"
SEARCH = SEARCH_REPORT / "search.json"
ARCHITECTURE = Path("models/architecture.json")
"""What stage prune leaves of the original; {} if nothing was searched."""
PRUNED = Path("models/pruned")
PRUNE_REPORT = REPORTS / "prune"
DISTILLED = Path("models/distilled")
DISTILL_STATE = Path("models/.distilled.ckpt")
DISTILL_REPORT = REPORTS / "distill"
ABLATIONS = REPORTS / "ablations"
"""A folder per table of variants, see tools/studies/tables/."""

COMPARISONS = REPORTS / "compare"
"""A page per sweep."""

QUANTIZED = Path("models/quantized")
QUANTIZE_STATE = Path("models/.quantized.ckpt")
QUANTIZE_REPORT = REPORTS / "quantize"
BUDGET = QUANTIZE_REPORT / "budget.json"
"""All networks that were measured for `quantize.budget`."""
BUDGET_PICTURE = QUANTIZE_REPORT / "budget.png"

LOAD_REPORT = REPORTS / "load"
OFFLINE = REPORTS / "offline"
"""What a machine without DVC and MLflow keeps of its run, see docs/gpu.md."""

BENCHMARK = REPORTS / "benchmark.json"
SUMMARY = REPORTS / "summary.json"
METRICS = REPORTS / "metrics.json"
"""What `dvc metrics show` and `dvc exp show` list."""
REPORT_HTML = REPORTS / "report.html"
REPORT_MD = REPORTS / "report.md"
MODEL_CARD = REPORTS / "model_card.md"
FIGURES = REPORTS / "figures"


def onnx_path(variant: str) -> Path:
    """Return the exported network's path; its description (names, shapes, dtypes, parity) lies beside it as .json."""
    return Path("models/onnx") / f"{variant}.onnx"


def engine_path(variant: str) -> Path:
    """Return the TensorRT engine's path; its description (library, targets, profiles) lies beside it as .json."""
    return Path("models/engines") / f"{variant}.plan"


def evaluation_dir(variant: str) -> Path:
    """Return the folder of one variant's metrics.json, samples.csv and side-by-side pictures."""
    return REPORTS / "evaluate" / variant
