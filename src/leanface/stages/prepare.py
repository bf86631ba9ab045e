"""Stage prepare: the morphable model, faces rendered with exact ground truth or a user's photos, two portraits."""

import json

import numpy as np
from PIL import Image

from leanface import paths
from leanface.config import Data
from leanface.data.alignment import template_from_landmarks3d
from leanface.data.contact_sheet import contact_sheet
from leanface.data.dataset import FaceDataset
from leanface.data.folder import prepare_folder
from leanface.data.prepare import prepare_faces, prepare_photos
from leanface.face.choice import choose_morphable_model


def run(*, data: Data, seed: int) -> dict[str, float]:
    model = choose_morphable_model(data.morphable_model, paths.MORPHABLE_MODEL)
    template = template_from_landmarks3d(model.mean_vertices[model.landmarks].numpy())
    photos = prepare_photos(data.photos, data.image_size, paths.PHOTOS, template)
    if data.folder is None:
        manifest = prepare_faces(model, data, seed, paths.FACES)
    else:
        manifest = prepare_folder(data.folder, data.image_size, template, paths.FACES)
    paths.PREPARE_REPORT.mkdir(parents=True, exist_ok=True)
    test = FaceDataset(paths.FACES / "test")
    contact_sheet(np.array(test.images[:36]), 6, paths.PREPARE_REPORT / "contact_sheet.png")
    crops = [np.asarray(Image.open(paths.PHOTOS / f"{name}.png")) for name in photos]
    contact_sheet(np.stack(crops), len(crops), paths.PREPARE_REPORT / "photos.png")
    metrics = {f"{split}_count": float(entry["count"]) for split, entry in manifest["splits"].items()}
    metrics["skipped_count"] = float(len(manifest.get("skipped", ())))
    metrics |= {f"{name}_score": entry["score"] for name, entry in photos.items()}
    (paths.PREPARE_REPORT / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    return metrics
