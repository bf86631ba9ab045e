"""Evaluate a classifier: against the teacher and the labels, with a confusion matrix and the worst images."""

from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from leanface.config import Evaluate
from leanface.metrics.estimate import Samples, means
from leanface.report.sheet import Cell, Row, save_figure, save_sheet
from leanface.task import Run, Scores
from leanface.tasks.classification.data import ImageSplit
from leanface.tasks.classification.task import ClassificationTask

BINS = 10
NUMBERED = 20
"""Up to so many classes, the confusion matrix has its counts written into it."""


def evaluate_classifier(
    task: ClassificationTask, teacher: Run, student: Run, settings: Evaluate, batch_size: int, folder: Path
) -> Scores:
    """Compare two classifiers on the test split; see `leanface.task.WholeTask.evaluate`."""
    test = task.split("test")
    images, truth = test.head(settings.count)[:2]
    assert truth is not None
    theirs, ours = (_answers(run, images, batch_size) for run in (teacher, student))
    save_confusion(ours, truth, folder / "confusion.png")
    save_worst(test, ours, truth, settings.picture_count, folder / "worst.png")
    majority = torch.bincount(torch.from_numpy(task.split("train").labels), minlength=task.classes).float()
    constant = (majority / majority.sum()).clamp_min(1e-4).log().expand_as(truth)
    return Scores(scores(task, ours, truth, theirs), means(scores(task, constant, truth, theirs)), (), {})


def scores(
    task: ClassificationTask,
    answers: Float[Tensor, "count classes"],
    truth: Float[Tensor, "count classes"],
    teacher: Float[Tensor, "count classes"],
) -> Samples:
    """Take every measure of a classifier in `leanface.catalog` for each sample."""
    found = {
        f"{reference}_{name}": values.double().numpy()
        for reference, target in (("truth", truth), ("teacher", teacher))
        for name, values in task.errors(answers, target).items()
    }
    right = 1 - found["truth_error"]
    gaps = calibration_gaps(torch.softmax(answers.double(), 1).amax(1).numpy(), right)
    return found | {
        "accuracy": right,
        "calibration_error": gaps,
        "teacher_agreement": 1 - found["teacher_error"],
    }


def calibration_gaps(
    confidence: Float[np.ndarray, " count"], right: Float[np.ndarray, " count"]
) -> Float[np.ndarray, " count"]:
    """Return how far confidence and accuracy are apart in each sample's bin; their mean is the calibration error.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017 (arXiv:1706.04599).
    """
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = np.zeros_like(confidence)
    for each in np.unique(bins):
        inside = bins == each
        gaps[inside] = abs(confidence[inside].mean() - right[inside].mean())
    return gaps


def save_confusion(answers: Tensor, truth: Tensor, path: Path) -> None:
    """Write a PNG: how many images of each true class, a row each, are taken for which class."""
    classes = truth.shape[1]
    pairs = truth.argmax(1) * classes + answers.argmax(1)
    counts = torch.bincount(pairs, minlength=classes**2).view(classes, classes).numpy()
    figure = Figure(figsize=(6, 5.4), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("class of the network")
    axes.set_ylabel("true class")
    if classes <= NUMBERED:
        axes.set_xticks(range(classes))
        axes.set_yticks(range(classes))
        for (line, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if shares[line, column] > 0.5 else "black"
                axes.text(column, line, str(count), ha="center", va="center", fontsize=9, color=color)
    save_figure(figure, path)


def save_worst(test: ImageSplit, answers: Tensor, truth: Tensor, count: int, path: Path) -> None:
    """Write a PNG of the images whose true class is found least likely, and what each is taken for."""
    probabilities = torch.softmax(answers.double(), 1)
    labels = truth.argmax(1)
    likely = probabilities.gather(1, labels[:, None])[:, 0]
    rows: list[Row] = []
    for at in cast(list[int], likely.argsort(stable=True)[:count].tolist()):
        taken = int(answers[at].argmax())
        text = (
            f"image {at}: a {int(labels[at])}\ntaken for a {taken}\n"
            f"{float(probabilities[at, taken]):.1%} sure\ntruth: {float(likely[at]):.1%}"
        )
        rows.append(Row(text, [Cell(test.images[at].transpose(1, 2, 0) / 255)]))
    save_sheet(["input"], rows, path)


def _answers(run: Run, images: Tensor, batch_size: int) -> Float[Tensor, "count classes"]:
    starts = range(0, len(images), batch_size)
    return torch.cat([torch.from_numpy(run(images[start : start + batch_size].numpy())) for start in starts])
