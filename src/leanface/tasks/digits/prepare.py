"""Prepare scikit-learn's handwritten digits, which come with it: 1,797 images, at 32x32."""

import importlib
from typing import Any

import torch
import torch.nn.functional as F

from leanface.config import Samples
from leanface.tasks.classification.data import Labeled
from leanface.tasks.classification.prepare import prepare_samples
from leanface.tasks.digits.network import CLASSES

VAL, TEST = 200, 600
"""Images of these splits; the others are trained on."""


def prepare(data: Samples, seed: int) -> dict[str, float]:
    """Split them by the seed; see `leanface.task.WholeTask.prepare`.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998; scikit-learn's copy of the
    test set, 8x8 pixels of 17 levels.
    """
    datasets: Any = importlib.import_module("sklearn.datasets")  # it has no types
    digits: Any = datasets.load_digits()
    small = torch.from_numpy(digits.images).float()[:, None] / 16
    size = (data.image_size, data.image_size)
    images = F.interpolate(small, size, mode="bilinear").clamp(0, 1).expand(-1, 3, -1, -1).numpy()
    labels: Any = digits.target
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).numpy()
    parts = {"test": order[:TEST], "val": order[TEST : TEST + VAL], "train": order[TEST + VAL :]}
    splits = {name: Labeled(images[part], labels[part]) for name, part in parts.items()}
    return prepare_samples(splits, CLASSES, data, seed)
