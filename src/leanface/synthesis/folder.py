"""A user's own photos as training data: every face found, aligned once, and kept as three splits without labels."""

import hashlib
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from leanface.config import PhotoFolder
from leanface.errors import ArtifactError, reason
from leanface.files import staged, write_json
from leanface.inputs import locate
from leanface.paths import SPLITS
from leanface.photos.crops import crop_faces
from leanface.photos.detector import FaceDetector
from leanface.photos.kinds import pick
from leanface.photos.load import load_photo
from leanface.photos.walk import walk
from leanface.synthesis.arrays import ArrayWriter
from leanface.synthesis.dataset import IMAGES

logger = logging.getLogger(__name__)

PHOTOS_MIN = 10
"""With fewer, a split of a tenth would be empty."""


class Face(NamedTuple):
    """One face of one photo; `crop` is its place among the crops."""

    photo: str
    sha256: str
    crop: int
    score: float


def prepare_folder(source: PhotoFolder, size: int, template: Float[np.ndarray, "5 2"], folder: Path) -> dict[str, Any]:
    """Write train/, val/, test/ and manifest.json to `folder`, which appears whole or not at all.

    All faces of a photo are in one split; which one depends on the photos' contents alone. Photos that cannot be
    read, show no face, or are there twice are left out.

    Args:
        size: side of the crops in pixels.
        template: see `leanface.photos.alignment.align`.

    Returns:
        The manifest: per split the count, the sha256 of images.npy, and each face's photo and score; and the
        photos left out, with the reason of each.

    Raises:
        ArtifactError: there are no photos, or too few of them show a face.
    """
    with staged(folder, owned=True) as staging:
        crops = staging / "crops"
        faces, skipped = _cut_out(source, size, template, crops)
        manifest: dict[str, Any] = {"source": "folder", "image_size": size, "splits": {}, "skipped": skipped}
        for split, members in _split(faces, source, len(skipped)).items():
            manifest["splits"][split] = _write(staging / split, members, crops, size)
        crops.unlink()
        write_json(staging / "manifest.json", manifest)
    return manifest


def _find(root: Path) -> list[Path]:
    try:
        photos, found = pick(walk(root)[0], root, ("photo",)), ""
    except OSError as error:
        photos, found = [], f" ({error.strerror})"
    if not photos:
        raise ArtifactError(
            f"{root.absolute()} holds no photos{found}. Put some there (folders within it count too), or set `path` in "
            "conf/data/folder.yaml to where they are."
        )
    return photos


def _cut_out(
    source: PhotoFolder, size: int, template: Float[np.ndarray, "5 2"], crops: Path
) -> tuple[list[Face], dict[str, str]]:
    """Cut out every face, and say why photos were left out. Pixels go to the file `crops`: memory stays flat."""
    detector, root = FaceDetector(), locate(source.path)
    faces: list[Face] = []
    skipped: dict[str, str] = {}
    first: dict[str, str] = {}
    with crops.open("wb") as file:
        for path in tqdm(_find(root), desc="finding faces", unit="photo", disable=None):
            name = path.relative_to(root).as_posix()
            try:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                if first.setdefault(digest, name) != name:
                    raise ArtifactError(f"the same file as {first[digest]}")
                for face in crop_faces(load_photo(path), detector, template, size, every=source.faces == "all"):
                    file.write(face.crop.tobytes())
                    faces.append(Face(name, digest, len(faces), float(face.detection.score)))
            except (ArtifactError, OSError) as error:
                logger.warning("left out %s: %s", name, reason(error))
                skipped[name] = reason(error)
    return faces, skipped


def _split(faces: list[Face], source: PhotoFolder, skipped_count: int) -> dict[str, list[Face]]:
    """Split faces: photos in the order of their hashes, the first for test, the next for val."""
    photos = sorted({face.sha256 for face in faces})
    if len(photos) < PHOTOS_MIN:
        raise ArtifactError(
            f"only {len(photos)} photos in {source.path} show a face that could be aligned, {skipped_count} were left "
            f"out (see above); at least {PHOTOS_MIN} are needed, and thousands for a good result."
        )
    test = max(1, round(source.test_share * len(photos)))
    val = test + max(1, round(source.val_share * len(photos)))
    place = {photo: "test" if rank < test else "val" if rank < val else "train" for rank, photo in enumerate(photos)}
    return {split: [face for face in faces if place[face.sha256] == split] for split in SPLITS}


def _write(target: Path, faces: list[Face], crops: Path, size: int) -> dict[str, Any]:
    target.mkdir()
    source = np.memmap(crops, np.uint8, "r").reshape(-1, size, size, 3)
    with ArrayWriter(target / IMAGES, np.uint8, (len(faces), size, size, 3)) as images:
        for face in faces:
            images.append(source[face.crop : face.crop + 1])
        digest = images.sha256()
    return {
        "count": len(faces),
        "sha256": {IMAGES: digest},
        "faces": [{"photo": face.photo, "score": face.score} for face in faces],
    }
