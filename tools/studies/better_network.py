"""What `leanface serve --better-model` gives: latency, and which network read how many photos, beside one alone.

    python -m tools.studies better_network docs/results/serving

The service's network is the one that LeanFace ships; the better one is its original, or the same before it was rounded
to INT8. How far each is from the original and from the truth is measured on rendered test faces.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from leanface import bundle, paths
from leanface.config import load_face_config
from leanface.device import describe_device, usable_cores
from leanface.export.onnx import describe, export_network, save_model
from leanface.face.morphable_model import load_morphable_model
from leanface.files import atomic_write, write_json
from leanface.networks.packed import load_pretrained
from leanface.photos.load import photo_path
from leanface.reconstruction.network import default_model, open_network
from leanface.synthesis.dataset import FaceDataset
from leanface.synthesis.prepare import prepare_faces
from leanface.tasks.face.task import FaceTask
from tools.studies.serving_load import Load, measure, own_service

FACES, SIZE, BATCH = 200, 224, 8
PHOTO = "astronaut"
MEASURE = "vertex_mm"


class Errors(NamedTuple):
    """Mean vertex distances (mm) of one network over the test faces."""

    original: float
    truth: float


def exported(folder: Path) -> dict[str, Path]:
    """Write the better networks in FP32, by their titles: the original, and the student before it was rounded."""
    original = load_pretrained(SIZE)
    networks = {
        "original": (original, bundle.new_spec(original, SIZE)),
        "light FP32": bundle.load_network(paths.PACKAGED_STUDENT),
    }
    files: dict[str, Path] = {}
    for title, (network, spec) in networks.items():
        files[title] = folder / f"{title.replace(' ', '_').lower()}.onnx"
        model = export_network(network, spec, "fp32", load_face_config(paths.CONFIG).export.opset, dynamic_size=False)
        save_model(model, files[title], describe(model))
    return files


def errors_of(files: dict[str, Path | None], folder: Path) -> dict[str, Errors]:
    """Read the test faces with each network as the service does, by its title; None: the one that LeanFace ships."""
    config, task = load_face_config(paths.CONFIG), FaceTask(load_morphable_model())
    counts = {"image_size": SIZE, "train_count": 1, "val_count": 1, "test_count": FACES}
    prepare_faces(task.model, config.data.model_copy(update=counts), config.seed, folder / "faces")
    faces = FaceDataset(folder / "faces" / "test")
    answers: dict[str, torch.Tensor] = {}
    for title, path in files.items():
        network = open_network(path, "auto", usable_cores())
        with network.runtime as runtime:
            batches = [runtime.run(faces.images[start : start + BATCH]) for start in range(0, FACES, BATCH)]
        answers[title] = torch.from_numpy(np.concatenate(batches))

    def distance(outputs: torch.Tensor, target: torch.Tensor) -> float:
        return float(task.errors(outputs, target)[MEASURE].mean())

    truth = faces.truth()["truth"]
    return {
        title: Errors(distance(outputs, answers["original"]), distance(outputs, truth))
        for title, outputs in answers.items()
    }


def mean_distance_mm(load: Load, errors: dict[str, Errors], titles: dict[str, str]) -> float:
    """Weigh the networks' distances to the original by how many photos each read."""
    return sum(share * errors[titles[name]].original for name, share in load.networks.items())


def markdown(rows: Sequence[tuple[str, Load, float]], errors: dict[str, Errors]) -> str:
    """Two tables: the networks, and each way to serve at each rate."""
    lines = ["| Network | To the original (mm) | To truth (mm) |", "|---|--:|--:|"]
    lines += [f"| {title} | {error.original:.3f} | {error.truth:.3f} |" for title, error in errors.items()]
    lines += [
        "",
        "| Way | Offered (1/s) | p50 ms | p99 ms | Refused | By the better | To the original (mm) |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for way, load, distance in rows:
        p50, p99 = ("-" if value is None else f"{value:.0f}" for value in (load.p50_ms, load.p99_ms))
        better = sum(share for name, share in load.networks.items() if name != default_model().name)
        shares = f"{load.refused + load.failed:.0%} | {better:.0%}"
        lines.append(f"| {way} | {load.offered:g} | {p50} | {p99} | {shares} | {distance:.3f} |")
    return "\n".join(lines) + "\n"


def main(folder: Path, rates: Sequence[float], seconds: float, p99_ms: float) -> None:
    """Measure, and write better_network.json and better_network.md."""
    photo = photo_path(PHOTO).read_bytes()
    with tempfile.TemporaryDirectory() as scratch:
        files = exported(Path(scratch))
        errors = errors_of({"INT8": None, **files}, Path(scratch))
        budget = ["--p99-ms", str(p99_ms)]
        ways = {"INT8 alone": list[str](), "original alone": ["--model", str(files["original"])]}
        ways |= {f"INT8, {title} if idle": ["--better-model", str(path), *budget] for title, path in files.items()}
        titles = {path.name: title for title, path in files.items()} | {default_model().name: "INT8"}
        rows: list[tuple[str, Load, float]] = []
        for way, options in ways.items():
            with own_service(options) as url:
                loads = measure(url, photo, sorted(rates), seconds)
            rows += [(way, load, mean_distance_mm(load, errors, titles)) for load in loads]
    text = markdown(rows, errors)
    print(text, end="")
    record = [{"way": way, **load.__dict__, "to_original_mm": distance} for way, load, distance in rows]
    about = {"device": describe_device(), "photo": PHOTO, "seconds": seconds, "p99_ms": p99_ms}
    networks = {title: error._asdict() for title, error in errors.items()}
    write_json(folder / "better_network.json", {**about, "networks": networks, "loads": record})
    atomic_write(folder / "better_network.md", text)
