"""One person of a video: every frame's coefficients and place, a texture averaged over time, and the files of both."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from leanface.face import geometry
from leanface.face.animation import Motion, encode_animation
from leanface.face.arkit import NAMES, Blendshapes
from leanface.face.coefficients import ANGLES, COUNT, EXPRESSION, LAYOUT
from leanface.face.mesh import Mesh
from leanface.reconstruction.lean_face import LeanFace
from leanface.reconstruction.outputs import Settings
from leanface.reconstruction.pictures import preview
from leanface.reconstruction.result import Reconstruction
from leanface.reconstruction.texture_average import TextureAverage

PLACE = ("x_m", "y_m", "z_m", "crop_scale", "crop_tx", "crop_ty")

LIVE_LINK_HZ = 60
"""In Live Link Face's time codes, which count frames of this rate and thousandths of one."""

LIVE_LINK_ANGLES = (
    *("HeadYaw", "HeadPitch", "HeadRoll", "LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll"),
    *("RightEyeYaw", "RightEyePitch", "RightEyeRoll"),
)


class Person:
    """Gathers one person's frames; some 1 kB of memory each, and a texture."""

    def __init__(self, lean_face: LeanFace, settings: Settings) -> None:
        """Begin without a frame."""
        self._lean_face = lean_face
        self._settings = settings
        self._frames: list[tuple[int, float]] = []
        self._rows: list[np.ndarray] = []
        """Coefficients, and PLACE."""
        self._texture = TextureAverage(lean_face.surface, settings.texture_px) if settings.texture_px else None
        self._frontal: Reconstruction | None = None
        """The face that shows most of itself so far, for the preview."""

    def __len__(self) -> int:
        """Count the frames."""
        return len(self._frames)

    @property
    def seconds(self) -> tuple[float, float]:
        """When the person is seen first and last."""
        return self._frames[0][1], self._frames[-1][1]

    def add(self, face: Reconstruction, photo: UInt8[np.ndarray, "H W 3"], frame: int, seconds: float) -> None:
        """Take in the person's face in one frame, later than those before."""
        if self._texture is not None and self._texture.wants(face, seconds):
            size = self._settings.texture_px
            self._texture.add(self._lean_face.textured(face, photo, size, delight=self._settings.delight), photo)
        if self._frontal is None or _turn(face) < _turn(self._frontal):
            self._frontal = face
        alignment = face.alignment
        place = [*place_in_video(face, photo.shape[:2]), alignment.scale, alignment.tx, alignment.ty]
        # Last of all: a frame is here whole or not at all.
        self._rows.append(np.concatenate([face.coefficients, place], dtype=np.float32))
        self._frames.append((frame, seconds))

    def write(self, folder: Path, name: str, blendshapes: Blendshapes | None) -> None:
        """Write NAME.csv, NAME.glb and NAME.png as the settings say, and with blendshapes NAME_arkit.csv and .json.

        Raises:
            OSError: a file cannot be written.
        """
        rows = np.stack(self._rows)
        (folder / f"{name}.csv").write_text(self._table(rows), encoding="utf-8")
        if blendshapes is not None:
            weights = blendshapes.fit(rows[:, EXPRESSION])
            content = _arkit(blendshapes.names, weights, self._frames)
            (folder / f"{name}_arkit.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
            live_link = _live_link(blendshapes.names, weights, rows[:, ANGLES], self._frames)
            (folder / f"{name}_arkit.csv").write_text(live_link, encoding="utf-8")
        texture = None if self._texture is None else self._texture.average()
        if self._settings.mesh is not None:
            (folder / f"{name}.glb").write_bytes(self._animation(name, rows, texture))
        if self._settings.pictures and self._frontal is not None:
            Image.fromarray(preview(replace(self._frontal, texture=texture))).save(folder / f"{name}.png")

    def _animation(self, name: str, rows: Float32[np.ndarray, "frames 263"], texture: np.ndarray | None) -> bytes:
        neutral = rows[:, :COUNT].mean(0)
        neutral[EXPRESSION] = 0
        (face,) = self._lean_face.decode(neutral[None])
        layout, painted = replace(face, texture=texture).painted()
        mesh = Mesh(
            face.vertices[layout.vertex], face.normals[layout.vertex], layout, painted, self._settings.texture_format
        )
        seconds = np.array([seconds for _, seconds in self._frames], np.float32)
        motion = Motion(seconds, rows[:, EXPRESSION], rows[:, ANGLES], rows[:, COUNT : COUNT + 3])
        return encode_animation(name, mesh, face.surface.expression_moves[:, layout.vertex], motion)

    def _table(self, rows: Float32[np.ndarray, "frames 263"]) -> str:
        groups = [f"{group}_{index}" for group, part in LAYOUT.items() for index in range(part.stop - part.start)]
        header = ["frame", "seconds", "pitch_deg", "yaw_deg", "roll_deg", *PLACE, *groups]
        table = np.concatenate([np.degrees(rows[:, ANGLES]), rows[:, COUNT:], rows[:, :COUNT]], 1)
        stream = io.StringIO()
        stream.write(",".join(header) + "\n")
        line = ",".join(["%.6g"] * table.shape[1])
        for (frame, seconds), row in zip(self._frames, table.tolist(), strict=True):
            stream.write(f"{frame},{seconds:.6f},{line % tuple(row)}\n")
        return stream.getvalue()


def place_in_video(face: Reconstruction, shape: tuple[int, ...]) -> Float[np.ndarray, "3"]:
    """Return where a head's origin lies (m) from a camera that all frames of a video share.

    The network sees each crop by a camera of its own. Where the crop lies in the frame says how far the head is beside
    the axis, and its size how far away; the focal length is taken to be the frame's longer side, for a video does not
    tell. x right, y up and z towards the camera, which is at the origin.
    """
    alignment, (height, width) = face.alignment, shape
    focal_px = geometry.FOCAL_PX * alignment.size / geometry.REFERENCE_SIZE_PX / alignment.scale
    middle = alignment.photo_from_crop(np.full(2, (alignment.size - 1) / 2))
    beside = (middle - ((width - 1) / 2, (height - 1) / 2)) / focal_px
    x, y, z = face.pose.translation_m.tolist()
    depth = geometry.DISTANCE_M - z
    return np.array([x + beside[0] * depth, y - beside[1] * depth, -max(width, height) / focal_px * depth])


def _turn(face: Reconstruction) -> float:
    """Return how far a head looks past the camera, in radians."""
    return float(np.abs(face.pose.angles_rad[:2]).sum())


def _arkit(
    names: tuple[str, ...], weights: Float32[np.ndarray, "frames units"], frames: list[tuple[int, float]]
) -> dict[str, Any]:
    return {
        "names": names,
        "not_expressed": [name for name in NAMES if name not in names],
        "frames": [
            {"frame": frame, "seconds": round(seconds, 6), "weights": row}
            for (frame, seconds), row in zip(frames, weights.astype(float).round(4).tolist(), strict=True)
        ],
    }


def _live_link(
    names: tuple[str, ...],
    weights: Float32[np.ndarray, "frames units"],
    angles_rad: Float32[np.ndarray, "frames 3"],
    frames: list[tuple[int, float]],
) -> str:
    """Return a table as the app Live Link Face records it; 0 for what the model cannot express."""
    columns = [names.index(name) if name in names else None for name in NAMES]
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    titles = [name[0].upper() + name[1:] for name in NAMES]
    table.writerow(["Timecode", "BlendShapeCount", *titles, *LIVE_LINK_ANGLES])
    for (_, seconds), row, (pitch, yaw, roll) in zip(frames, weights.tolist(), angles_rad.tolist(), strict=True):
        values = [0.0 if column is None else row[column] for column in columns]
        angles = [yaw, pitch, roll, *[0.0] * (len(LIVE_LINK_ANGLES) - 3)]
        count = len(values) + len(angles)
        table.writerow([_time_code(seconds), count, *(f"{value:.6f}" for value in [*values, *angles])])
    return stream.getvalue()


def _time_code(seconds: float) -> str:
    """Return hours:minutes:seconds:frames, with thousandths of a frame."""
    thousandths = round(seconds * LIVE_LINK_HZ * 1000)
    whole, rest = divmod(thousandths, LIVE_LINK_HZ * 1000)
    frame, part = divmod(rest, 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}:{frame:02d}.{part:03d}"
