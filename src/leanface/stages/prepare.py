"""Stage prepare: rendered faces with exact ground truth, and the aligned photos."""

import json

from leanface import paths
from leanface.config import Data
from leanface.data.contact_sheet import prepared_sheet
from leanface.data.dataset import FaceDataset
from leanface.data.distributions import plot_distributions
from leanface.data.prepare import prepare_faces, prepare_photos
from leanface.data.staging import staged
from leanface.face.morphable_model import load_morphable_model


def run(*, data: Data, seed: int) -> dict[str, float]:
    model = load_morphable_model()
    photos = prepare_photos(data.photos, data.image_size, paths.PHOTOS)
    manifest = prepare_faces(model, data, seed, paths.FACES)
    metrics = {f"{split}_count": float(entry["count"]) for split, entry in manifest["splits"].items()}
    metrics |= {f"{name}_score": entry["score"] for name, entry in photos.items()}
    splits = {split: FaceDataset(paths.FACES / split) for split in paths.SPLITS}
    with staged(paths.PREPARE_REPORT) as report:
        prepared_sheet(splits, {name: paths.PHOTOS / f"{name}.png" for name in photos}, report / "contact_sheet.png")
        plot_distributions(splits, report / "distributions.png")
        (report / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    return metrics
