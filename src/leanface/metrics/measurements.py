"""What stages benchmark and evaluate measured, typed from the moment it is measured until it is drawn."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from leanface.config import Benchmark
from leanface.errors import ArtifactError
from leanface.metrics.estimate import MeanEstimate
from leanface.metrics.ratio import MedianEstimate

Record = TypeVar("Record", bound=BaseModel)


class Measurement(BaseModel):
    """One network in one runtime at one batch size; what could not run has a reason and no numbers.

    Attributes:
        streams: batches at the same time (`leanface.runtime.pipelined`); `latency` is then from one result to the next.
        copies: of the images to the GPU and of the coefficients back, in every call; otherwise the images lie there
            already. On the CPU there are none.
        not_run: why it did not run.
        latency: of one call (ms).
        speedup: images per second over those of the baseline at the same batch size.
        images_per_second: of all streams together.
        cold_start_ms: from opening the file to its first result, in a fresh process that has the libraries loaded; at
            the first batch size only.
        memory_mb: see `leanface.runtime.benchmark.measure_fresh`; device_memory_mb likewise, of the GPU. memory_reason
            says why it was not measured.
        energy_mj: per image, of the whole GPU or processor package; energy_source: its `EnergyCounter`'s.
            energy_reason says why it was not measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: str
    runtime: str
    batch: int
    streams: int = 1
    copies: bool = False
    not_run: str | None = None
    latency: MedianEstimate | None = None
    p90_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None
    speedup: MedianEstimate | None = None
    windows: int = 0
    images_per_second: float | None = None
    cold_start_ms: float | None = None
    memory_mb: float | None = None
    device_memory_mb: float | None = None
    memory_reason: str | None = None
    energy_mj: float | None = None
    energy_source: str | None = None
    energy_reason: str | None = None
    size_bytes: int | None = None

    @property
    def ran(self) -> bool:
        """Whether there are numbers."""
        return self.latency is not None

    @property
    def latency_ms(self) -> float | None:
        """The median latency."""
        return None if self.latency is None else self.latency.value


class BenchmarkRecord(BaseModel):
    """Everything that stage benchmark measured on one machine.

    Attributes:
        baseline_runtime: that of the teacher in FP32, to which speed-ups are relative; None: it did not run.
        files: bytes of each variant's ONNX file.
        end_to_end: from a photo to posed vertices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: dict[str, Any]
    image_size: int
    settings: Benchmark
    clocks_mhz: dict[str, dict[str, float | None]]
    baseline_runtime: str | None
    files: dict[str, int]
    rows: tuple[Measurement, ...]
    end_to_end: tuple[Measurement, ...]


class PhotoScores(BaseModel):
    """How a network compares with the teacher on photos, of which no truth is known.

    Attributes:
        measures: means over the photos, by the measure's name in the catalog.
        undefined: how many photos each mean leaves out, if any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    names: tuple[str, ...]
    measures: dict[str, float]
    undefined: dict[str, int]


class Evaluation(BaseModel):
    """How one network compares with the teacher and with the truth, on test samples and, of faces, on photos.

    Attributes:
        runtime: in which its file was read.
        better_runtimes: why each better one was not used.
        count: test samples.
        measures: by name in the catalog; None where the measure is undefined for all samples.
        undefined: how many samples each mean leaves out, if any.
        constant: what always giving the same answer, as the mean face, would score.
        photos: None for a task that has none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: str
    runtime: str
    better_runtimes: dict[str, str]
    count: int
    image_size: int
    measures: dict[str, MeanEstimate | None]
    undefined: dict[str, int]
    constant: dict[str, float]
    photos: PhotoScores | None

    def mean(self, measure: str) -> float | None:
        """Return the mean over the test samples; None where it is undefined for all of them, or was not taken."""
        found = self.measures.get(measure)
        return None if found is None else found.mean


def read_benchmark(path: Path) -> BenchmarkRecord:
    """Read benchmark.json.

    Raises:
        ArtifactError: it is missing, damaged, or another version's.
    """
    return _read(BenchmarkRecord, path, "benchmark")


def read_evaluation(path: Path) -> Evaluation:
    """Read a variant's metrics.json of stage evaluate.

    Raises:
        ArtifactError: it is missing, damaged, or another version's.
    """
    return _read(Evaluation, path, "evaluate")


def _read(record: type[Record], path: Path, stage: str) -> Record:
    try:
        return record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: run `dvc repro`, which makes it.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "contents"
        raise ArtifactError(
            f"{path} is damaged, or another version of LeanFace wrote it ({where}: {first['msg']}). "
            f"Make it again with `dvc repro --force {stage}`."
        ) from None


def fastest_first(
    rows: Iterable[Measurement],
    *,
    variant: str | None = None,
    runtime: str | None = None,
    batch: int | None = None,
    streams: int | None = None,
    copies: bool = False,
) -> list[Measurement]:
    """Choose the rows that ran and have these values (None: any), by their latency."""
    wanted = {"variant": variant, "runtime": runtime, "batch": batch, "streams": streams, "copies": copies}
    chosen = [
        row
        for row in rows
        if row.ran and all(value is None or getattr(row, name) == value for name, value in wanted.items())
    ]
    return sorted(chosen, key=lambda row: row.latency_ms or 0.0)
