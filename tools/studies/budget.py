"""Measures the networks that `quantize.budget` chooses from, beside the rule that it replaced.

    python -m tools.studies budget docs/results/budget

reads reports/config.yaml and what stages prepare and distill left. The rule, `keep_fp16: auto`, kept at most four
layers whose error alone, in the original network, was over three times the median layer's. Errors are of the val
split; nothing of the test split is read.
"""

import copy
import shutil
from pathlib import Path

from leanface import bundle, paths
from leanface.config import Budget, load_face_config
from leanface.device import describe_device, usable_cores
from leanface.files import atomic_write
from leanface.metrics.outputs import predict
from leanface.mixed_precision import MixedPrecision
from leanface.quantization.budget import Point, front_of
from leanface.quantization.calibrate import calibrate, quantizer_of, round_calibrated
from leanface.report.front import save_front
from leanface.tasks.face.task import FaceTask

RULE = ("final_layers.0", "backbone.layer1.0.downsample.0", "backbone.layer1.0.conv1", "backbone.conv1")
"""What `keep_fp16: auto` chose for the packaged original."""

MEASURES = {"vertex_mm": "vertices, mm", "rotation_deg": "rotation, degrees", "albedo_levels": "albedo, levels"}
ANY = Budget(latency=1e6)
"""Limits nothing: parts are ranked by all measures."""


def main(folder: Path) -> None:
    """Measure, and write README.md, budget.json and budget.png."""
    settings, task = load_face_config(paths.CONFIG).quantize, FaceTask.load()
    train, val = task.split("train"), task.split("val")
    distilled, spec = bundle.load_network(paths.DISTILLED)
    quantizer, reference = quantizer_of(settings, spec.widths), predict(distilled, val)
    network = calibrate(distilled, settings, quantizer, train)
    before = copy.deepcopy(network.state_dict())
    round_calibrated(network, settings, train)
    points = MixedPrecision(task, network, before, quantizer, reference).measured(ANY, [RULE])
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(paths.BUDGET, folder / paths.BUDGET.name)
    as_json = [point._asdict() for point in points]
    save_front(
        as_json, as_json[-1], ANY.model_dump() | {"latency": None}, [*MEASURES], folder / "budget.png", "the rule"
    )
    atomic_write(folder / "README.md", page(points, val.image_size, len(val)))


def page(points: list[Point], size: int, count: int) -> str:
    """Draw the table of the networks that none beats in both latency and vertices, and of the rule's."""
    *searched, rule = points
    front = front_of(searched, "vertex_mm")
    better = [
        point
        for point in searched
        if point.latency_ms <= rule.latency_ms and all(point.errors[name] <= rule.errors[name] for name in MEASURES)
    ]
    verdict = (
        f"{len(better)} of the networks are at least as fast as the rule's and closer in all three measures."
        if better
        else "None of the networks is as fast as the rule's and closer in all three measures."
    )
    lines = [
        "# Mixed precision within a budget",
        "",
        f"`python -m tools.studies budget`, on {describe_device()['cpu']} ({usable_cores()} threads), at {size} px. "
        f"Mean errors to the distilled network over {count} validation faces, and the latency of one image, of the "
        "file of flavor cpu in OpenVINO (tensorrt without VNNI), in turns with the one that is all INT8. The networks "
        f"that no other one of {len(searched)} beats in both latency and vertices, and the one of `keep_fp16: auto`, "
        f"which the search replaced. {verdict}",
        "",
        "| in floating point | ms | " + " | ".join(MEASURES.values()) + " |",
        "|---|---:|" + "---:|" * len(MEASURES),
    ]
    for point in [*front, rule]:
        names = ", ".join(name.removeprefix("backbone.") for name in point.kept) or "nothing"
        cells = [f"the rule: {names}" if point is rule else names, f"{point.latency_ms:.3f}"]
        lines.append("| " + " | ".join([*cells, *(f"{point.errors[name]:.3f}" for name in MEASURES)]) + " |")
    return "\n".join([*lines, "", "![Error against latency](budget.png)", ""])
