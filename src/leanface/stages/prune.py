"""Stage prune: channels go, and what is left is re-fitted in closed form."""

import json

from leanface import bundle, paths
from leanface.config import Prune
from leanface.data.dataset import FaceDataset
from leanface.face.morphable_model import load_morphable_model
from leanface.pruning.compensate import compensate
from leanface.pruning.prune import prune as prune_channels
from leanface.pruning.report import errors_on, write_report


def run(*, prune: Prune, seed: int) -> dict[str, float]:
    model, val = load_morphable_model(), FaceDataset(paths.FACES / "val")
    teacher, parent = bundle.load_network(paths.TEACHER)
    pruned, kept = prune_channels(teacher, prune, seed)
    result = pruned
    ...
