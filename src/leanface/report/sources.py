"""Read everything that the report is made of from the other stages' outputs."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from leanface import catalog, paths
from leanface.errors import ArtifactError
from leanface.files import Json, read_json, read_text
from leanface.metrics.measurements import BenchmarkRecord, Evaluation, read_benchmark, read_evaluation

STAGE_REPORTS = {
    "prepare": paths.PREPARE_REPORT,
    "teacher": paths.TEACHER_REPORT,
    "analyze": paths.ANALYZE_REPORT,
    "search": paths.SEARCH_REPORT,
    "prune": paths.PRUNE_REPORT,
    "distill": paths.DISTILL_REPORT,
    "quantize": paths.QUANTIZE_REPORT,
}


@dataclass(frozen=True)
class Picture:
    """A picture that a stage may have made, and what it shows.

    Attributes:
        caption: "" for pictures that not every task has; `Subject.pictures` has theirs.
    """

    name: str
    path: Path
    caption: str = ""


PICTURES = (
    Picture("faces", paths.PREPARE_REPORT / "contact_sheet.png"),
    Picture("distributions", paths.PREPARE_REPORT / "distributions.png"),
    Picture("teacher", paths.TEACHER_REPORT / "reconstructions.png"),
    Picture("teacher_errors", paths.TEACHER_REPORT / "errors.png"),
    Picture("teacher_curves", paths.TEACHER_REPORT / "curves.png", "Training of the original"),
    Picture("layers", paths.LAYERS_PICTURE, "Where the original spends parameters and computation"),
    Picture("sensitivity", paths.SENSITIVITY_PICTURE, "What pruning or INT8 in one layer alone costs"),
    Picture("search", paths.SEARCH_REPORT / "search.png", "What the search for the targets found"),
    Picture("widths", paths.PRUNE_REPORT / "widths.png", "Channels per layer, before and after pruning"),
    Picture("distill_curves", paths.DISTILL_REPORT / "curves.png", "Distillation"),
    Picture("quantize_curves", paths.QUANTIZE_REPORT / "curves.png", "Quantization-aware training"),
    Picture("budget", paths.BUDGET_PICTURE, "Mixed precision: layers kept in floating point, until the budget is met"),
)


@dataclass(frozen=True)
class Sources:
    """The reports' contents, by stage or variant, and the file of each of `PICTURES` that exists."""

    device: Json
    benchmark: BenchmarkRecord
    evaluations: dict[str, Evaluation]
    exports: dict[str, Json]
    engines: dict[str, Json]
    stages: dict[str, Json]
    pictures: dict[str, Path]
    config: str

    @property
    def settings(self) -> Json:
        """The configuration, parsed."""
        return yaml.safe_load(self.config)


def read_sources() -> Sources:
    """Read all reports.

    Raises:
        ArtifactError: one is missing or is not JSON, or they come from different machines.
    """
    benchmark = read_benchmark(paths.BENCHMARK)
    device = read_json(paths.DEVICE)
    require_same_device(benchmark.device, device)
    return Sources(
        device=device,
        benchmark=benchmark,
        evaluations={name: read_evaluation(paths.evaluation_dir(name) / "metrics.json") for name in catalog.EVALUATED},
        exports={name: read_json(paths.onnx_path(name).with_suffix(".json")) for name in catalog.EVALUATED},
        engines={name: read_json(paths.engine_path(name).with_suffix(".json")) for name in catalog.ENGINES},
        stages={
            name: read_json(folder / "metrics.json")
            for name, folder in STAGE_REPORTS.items()
            if (folder / "metrics.json").is_file()
        },
        pictures={picture.name: picture.path for picture in PICTURES if picture.path.is_file()},
        config=read_text(paths.CONFIG),
    )


def require_same_device(benchmarked: Json, present: Json) -> None:
    """Refuse to put numbers of two machines into one report.

    Raises:
        ArtifactError: the records differ; says where.
    """
    if benchmarked == present:
        return
    keys = benchmarked.keys() | present.keys()
    differing = sorted(key for key in keys if benchmarked.get(key) != present.get(key))
    raise ArtifactError(
        f"{paths.BENCHMARK} was measured on another machine than {paths.DEVICE} describes: they differ in "
        f"{', '.join(differing)}. Numbers of two machines are not comparable: measure again with "
        "`dvc repro --force benchmark`, then `dvc repro`."
    )
