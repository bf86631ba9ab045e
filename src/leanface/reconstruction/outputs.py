"""One folder per picture: meshes, pictures and coefficients, whole or not there at all."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from leanface.files import staged
from leanface.reconstruction.pictures import overlay, preview
from leanface.reconstruction.result import Reconstruction
from leanface.reconstruction.sources import Picture, Source

RECORD = "reconstruction.json"
"""Written last into a folder that appears at once: where it is, everything is."""

Faces = Literal["all", "largest"]


@dataclass(frozen=True)
class Settings:
    """What is written of each face; a rerun with other settings writes again.

    Attributes:
        network: the network's file name and precision.
        mesh: suffix without its dot, or None for no mesh.
        texture_px: side of the texture; 0 for the model's albedo.
        pictures: whether previews and overlays are drawn.
    """

    network: str
    mesh: str | None = "glb"
    texture_px: int = 1024
    delight: bool = False
    faces: Faces = "all"
    pictures: bool = True


def write(
    folder: Path,
    picture: Picture,
    photo: UInt8[np.ndarray, "H W 3"],
    faces: Sequence[Reconstruction],
    settings: Settings,
) -> None:
    """Write face_1.glb, face_1.json, face_1.png, ..., overlay.png and the record.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    with staged(folder) as new:
        for number, face in enumerate(faces, 1):
            if settings.mesh is not None:
                face.save_mesh(new / f"face_{number}.{settings.mesh}")
            (new / f"face_{number}.json").write_text(json.dumps(face.to_json()) + "\n")
            if settings.pictures:
                Image.fromarray(preview(face)).save(new / f"face_{number}.png", compress_level=1)
        if settings.pictures:
            Image.fromarray(overlay(photo, list(faces))).save(new / "overlay.png", compress_level=1)
        record = _record(picture.source, settings) | {"faces": len(faces), "seconds": picture.seconds}
        (new / RECORD).write_text(json.dumps(record, indent=1) + "\n")


def is_done(folder: Path, source: Source, settings: Settings) -> bool:
    """Whether an earlier run wrote this very photo with these settings."""
    try:
        record = json.loads((folder / RECORD).read_text())
        return source.path is not None and _record(source, settings).items() <= record.items()
    except (OSError, ValueError, AttributeError):
        return False


def _record(source: Source, settings: Settings) -> dict[str, Any]:
    """What a result depends on; a photo counts as the same while its size and time of change are."""
    file = source.path.stat() if source.path is not None else None
    return {
        "source": Path(source.label).name,
        "size_bytes": None if file is None else file.st_size,
        "modified_ns": None if file is None else file.st_mtime_ns,
        "settings": asdict(settings),
    }
