"""`python -m tools.studies adaptive`: what reading strange faces again is worth and costs."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from leanface import paths
from leanface.device import describe_device
from leanface.errors import ArtifactError
from leanface.face.errors import geometry_errors
from leanface.files import atomic_write, write_json
from leanface.monitoring.population import Population
from leanface.reconstruction import LeanFace
from leanface.serving.adaptive import Adaptive, Policy, Read, cost_ms
from leanface.synthesis.dataset import FaceDataset

SHARES = (0.1, 0.25, 0.5)
"""Of the larger network's time, what reading again may cost."""


@dataclass(frozen=True)
class Row:
    """One way to read the test faces, one after the other.

    Attributes:
        budget_ms: per face, for reading again; None: one network alone.
        reread: share of the faces that the larger network read.
        error_mm: mean vertex distance to the truth.
        chance_mm: what reading as many faces again, chosen at random, would give on average.
    """

    name: str
    budget_ms: float | None
    reread: float
    error_mm: float
    chance_mm: float
    mean_ms: float
    p95_ms: float


def measure(small: Path, large: Path, runtime: str, threads: int | None) -> list[Row]:
    """Read this project's test faces in every way, in turns, one face at a time. Thresholds come from the val faces.

    Raises:
        ArtifactError: a file is missing, the faces have no labels, or the networks read other sizes.
    """
    test, known = FaceDataset(paths.FACES / "test"), FaceDataset(paths.FACES / "val")
    if test.coefficients is None:
        raise ArtifactError(f"the faces in {paths.FACES} have no labels: there is no truth to compare with.")
    with LeanFace.load(small, runtime, threads) as first, LeanFace.load(large, runtime, threads) as second:
        if first.image_size != second.image_size:
            raise ArtifactError(f"{small} and {large} read images of {first.image_size} and {second.image_size} px.")
        model = first.surface.model
        population = Population.of_training(model)
        distances = population.distance(first.read(np.array(known.images)))
        price = cost_ms(second.read, second.image_size)
        ways: dict[str, tuple[float | None, Read]] = {"small": (None, first.read), "large": (None, second.read)}
        rereads: dict[str, list[bool]] = {"small": [False], "large": [True]}
        for share in SHARES:
            policy = Policy.calibrated(distances, share * price, price)
            name = f"adaptive {share:.0%}"
            adaptive = Adaptive(first.read, second.read, population, policy)
            rereads[name] = []
            ways[name] = (policy.budget_ms, _recording(adaptive, rereads[name]))
        answers, times_ms = _in_turns({name: read for name, (_, read) in ways.items()}, np.array(test.images))
    truth = torch.from_numpy(np.array(test.coefficients))
    errors = {
        name: float(geometry_errors(model, torch.from_numpy(read), truth)["vertex_mm"].mean())
        for name, read in answers.items()
    }
    rows: list[Row] = []
    for name, (budget_ms, _) in ways.items():
        share = float(np.mean(rereads[name]))
        chance = errors["small"] + share * (errors["large"] - errors["small"])
        p95 = float(np.percentile(times_ms[name], 95))
        rows.append(Row(name, budget_ms, share, errors[name], chance, float(times_ms[name].mean()), p95))
    return rows


def _recording(adaptive: Adaptive, reread: list[bool]) -> Read:
    def read(crops: np.ndarray) -> Float[np.ndarray, "N 257"]:
        reading = adaptive.read(crops)
        reread.extend(reading.reread.tolist())
        return reading.coefficients

    return read


def _in_turns(ways: dict[str, Read], images: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Every way's coefficients, and how long each face took (ms)."""
    answers: dict[str, list[np.ndarray]] = {name: [] for name in ways}
    times_ms: dict[str, list[float]] = {name: [] for name in ways}
    for image in images:
        for name, read in ways.items():
            start = time.perf_counter()
            answers[name].append(read(image[None]))
            times_ms[name].append(1000 * (time.perf_counter() - start))
    together = {name: np.concatenate(rows) for name, rows in answers.items()}
    return together, {name: np.array(values) for name, values in times_ms.items()}


def markdown(rows: Sequence[Row]) -> str:
    """A table."""
    lines = [
        "| Way | Budget (ms per face) | Read again | Error (mm) | as many at random (mm) | mean ms | p95 ms |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        budget = "-" if row.budget_ms is None else f"{row.budget_ms:.2f}"
        chance = "-" if row.budget_ms is None else f"{row.chance_mm:.3f}"
        numbers = f"{row.error_mm:.3f} | {chance} | {row.mean_ms:.2f} | {row.p95_ms:.2f}"
        lines.append(f"| {row.name} | {budget} | {row.reread:.0%} | {numbers} |")
    return "\n".join(lines) + "\n"


def save(folder: Path, rows: Sequence[Row], small: Path, large: Path) -> None:
    """Write adaptive.json and adaptive.md."""
    content = {
        "device": describe_device(),
        "small": small.name,
        "large": large.name,
        "rows": [asdict(row) for row in rows],
    }
    write_json(folder / "adaptive.json", content)
    atomic_write(folder / "adaptive.md", markdown(rows))
