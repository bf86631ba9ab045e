"""One folder per picture: meshes, pictures and coefficients, whole or not there at all."""

import functools
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from leanface.extras import installed_version
from leanface.face.mesh import TextureFormat
from leanface.files import claim, digest, forget_others, is_intact, kind_of_result, remove_result, require_free, staged
from leanface.reconstruction.lean_face import LeanFace
from leanface.reconstruction.pictures import overlay, preview
from leanface.reconstruction.result import Reconstruction
from leanface.reconstruction.sources import Picture

RECORD = "reconstruction.json"

RECONSTRUCTION, VIDEO, FRAME = "reconstruction", "video", "frame"
"""Kinds of results, see `leanface.files.staged`. A video's folder holds its animation, or its frames' folders."""

Faces = Literal["all", "largest"]
FramesAs = Literal["animation", "folders"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What is written of each face; a rerun with other settings writes again.

    Attributes:
        mesh: suffix without its dot, or None for no mesh.
        texture_px: side of the texture; 0 for the model's albedo.
        texture_format: of the texture in or beside the mesh.
        pictures: whether previews and overlays are drawn.
        min_face_px: the smallest face that is looked for; None for the detector's own choice.
    """

    mesh: str | None = "glb"
    texture_px: int = 1024
    texture_format: TextureFormat = "jpeg"
    delight: bool = False
    faces: Faces = "all"
    pictures: bool = True
    min_face_px: int | None = None


@dataclass(frozen=True)
class VideoSettings:
    """What is taken of videos and cameras.

    Attributes:
        every: keep every Nth frame.
        limit: end after so many frames.
        frames_as: one animated result for all frames, or a result for each.
    """

    every: int = 1
    limit: int | None = None
    frames_as: FramesAs = "animation"


class Photo:
    """A photo's or video's file, told from another one with the same name, size and time of change by what is in it."""

    def __init__(self, path: Path) -> None:
        """Look at the file.

        Raises:
            OSError: it is not there.
        """
        self._path = path
        status = path.stat()
        self.status = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        """While these are the same, so is the content: any change of a file, also its replacement, shows in one."""

    @functools.cached_property
    def sha256(self) -> str:
        """Of the content."""
        return digest(self._path)


def made_with(lean_face: LeanFace) -> dict[str, Any]:
    """Describe the software, network and morphable model that a result depends on, the latter two by their content."""
    return {
        "leanface": installed_version("leanface"),
        "network": lean_face.model_path.name,
        "network_sha256": digest(lean_face.model_path),
        "precision": lean_face.precision,
        "morphable_model_sha256": lean_face.surface.sha256,
    }


def write(
    folder: Path,
    picture: Picture,
    photo: UInt8[np.ndarray, "H W 3"],
    faces: Sequence[Reconstruction],
    settings: Settings,
    made: dict[str, Any],
    file: Photo | None = None,
) -> None:
    """Write face_1.glb, face_1.json, face_1.png, ..., overlay.png and the record; in a video by the person's number.

    Args:
        photo: the picture's pixels.
        made: see `made_with`.
        file: what the photo was read from; None for frames and standard input.

    Raises:
        ArtifactError: the folder cannot be written, or holds what LeanFace did not make.
    """
    with staged(folder, kind_of(picture)) as new:
        for place, face in enumerate(faces, 1):
            number = place if face.detection is None else face.detection.number or place
            if settings.mesh is not None:
                mesh = face.encode_mesh(f"face_{number}.{settings.mesh}", settings.texture_format)
                for name, content in mesh.items():
                    (new / name).write_bytes(content)
            (new / f"face_{number}.json").write_text(json.dumps(face.to_json()) + "\n")
            if settings.pictures:
                Image.fromarray(preview(face)).save(new / f"face_{number}.png", compress_level=1)
        if settings.pictures:
            Image.fromarray(overlay(photo, list(faces))).save(new / "overlay.png", compress_level=1)
        record = {
            "source": Path(picture.source.label).name,
            "seconds": picture.seconds,
            "photo_sha256": None if file is None else file.sha256,
            "photo_status": None if file is None else file.status,
            "settings": asdict(settings),
            "made_with": made,
            "faces": len(faces),
        }
        (new / RECORD).write_text(json.dumps(record, indent=1) + "\n")


def kind_of(picture: Picture) -> str:
    """Return the kind of a picture's result."""
    return RECONSTRUCTION if picture.seconds is None else FRAME


def is_done(
    folder: Path, file: Photo, settings: Settings, made: dict[str, Any], video: VideoSettings | None = None
) -> bool:
    """Tell whether an earlier run wrote all of this very photo or video, in the same way, and all is still there."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
        known = record["settings"] == asdict(settings) and record["made_with"] == made and is_intact(folder)
        if video is not None:
            known = known and record["video"] == asdict(video) and is_complete(folder)
        return known and (record["photo_status"] == file.status or record["photo_sha256"] == file.sha256)
    except (OSError, ValueError, TypeError, KeyError):
        return False


def is_complete(folder: Path) -> bool:
    """Tell whether an earlier run wrote the animation of a whole video there."""
    try:
        return is_intact(folder) and bool(json.loads((folder / RECORD).read_bytes())["complete"])
    except (OSError, ValueError, TypeError, KeyError):
        return False


def begin_video(out: Path, name: str) -> None:
    """Make the folder of a video's frames, or remove what an earlier run left in it.

    Raises:
        ArtifactError: the folder holds what LeanFace did not make, or cannot be written.
    """
    folder = out / name
    require_free(folder, VIDEO, out)
    claim(folder, VIDEO)
    forget_others(folder, VIDEO, ())
    remove_frames(folder)


def remove_frames(folder: Path) -> None:
    """Remove the frames that an earlier run left in a video's folder."""
    old = [path for path in folder.iterdir() if kind_of_result(path) == FRAME and not path.is_symlink()]
    for frame in old:
        remove_result(frame, FRAME)
    if old:
        logger.info("%s: the %d frames of an earlier run make room for new ones", folder, len(old))
