"""Prepare a classifier's samples: three splits, and a picture of each class."""

from leanface import paths
from leanface.config import Samples
from leanface.files import staged, write_json
from leanface.report.sheet import Cell, Row, save_sheet
from leanface.tasks.classification.data import ImageSplit, Labeled, write_splits

SHOWN = 6
"""Images of each class in the picture."""
CLASSES_SHOWN = 12


def prepare_samples(splits: dict[str, Labeled], classes: int, data: Samples, seed: int) -> dict[str, float]:
    """Write the splits and a picture of the first; see `leanface.task.WholeTask.prepare`.

    Raises:
        ArtifactError: the samples are not what they have to be.
    """
    counts = write_splits(splits, classes, data, seed, paths.SAMPLES)
    metrics = {f"{name}_count": float(count) for name, count in counts.items()}
    train = ImageSplit(paths.SAMPLES / "train", classes)
    rows: list[Row] = []
    for label in range(min(classes, CLASSES_SHOWN)):
        found = (train.labels == label).nonzero()[0][:SHOWN]
        if len(found) == SHOWN:
            rows.append(Row(f"class {label}", [Cell(train.images[at].transpose(1, 2, 0) / 255) for at in found]))
    with staged(paths.PREPARE_REPORT, owned=True) as report:
        if rows:
            save_sheet([""] * SHOWN, rows, report / "contact_sheet.png")
        write_json(report / "metrics.json", metrics)
    return metrics
