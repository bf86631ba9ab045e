"""Prepare faces: the morphable model, faces rendered with exact ground truth or a user's photos, two portraits."""

from leanface import paths
from leanface.config import Data
from leanface.face.choice import choose_morphable_model
from leanface.files import staged, write_json
from leanface.photos.alignment import template_from_landmarks3d
from leanface.synthesis.contact_sheet import prepared_sheet
from leanface.synthesis.dataset import FaceDataset
from leanface.synthesis.distributions import plot_distributions
from leanface.synthesis.folder import prepare_folder
from leanface.synthesis.prepare import prepare_faces, prepare_photos


def prepare(data: Data, seed: int) -> dict[str, float]:
    """Write the morphable model and the splits; see `leanface.task.WholeTask.prepare`."""
    model = choose_morphable_model(data.morphable_model, paths.MORPHABLE_MODEL)
    template = template_from_landmarks3d(model.mean_vertices[model.landmarks].numpy())
    photos = prepare_photos(data.photos, data.image_size, paths.PHOTOS, template)
    if data.folder is None:
        manifest = prepare_faces(model, data, seed, paths.FACES)
    else:
        manifest = prepare_folder(data.folder, data.image_size, template, paths.FACES)
    metrics = {f"{split}_count": float(entry["count"]) for split, entry in manifest["splits"].items()}
    metrics["skipped_count"] = float(len(manifest.get("skipped", ())))
    metrics |= {f"{name}_score": entry["score"] for name, entry in photos.items()}
    splits = {split: FaceDataset(paths.FACES / split) for split in paths.SPLITS}
    with staged(paths.PREPARE_REPORT, owned=True) as report:
        prepared_sheet(splits, {name: paths.PHOTOS / f"{name}.png" for name in photos}, report / "contact_sheet.png")
        if data.folder is None:  # photos come without the coefficients that are plotted
            plot_distributions(splits, report / "distributions.png")
        write_json(report / "metrics.json", metrics)
    return metrics
