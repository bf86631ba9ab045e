"""What is known of one reconstructed face, and how it is written to files."""

import math
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from leanface.face import geometry
from leanface.face.coefficients import ALBEDO, ANGLES, LAYOUT
from leanface.face.mesh import TextureFormat, encode_mesh
from leanface.face.uv_layout import UvLayout
from leanface.files import atomic_write
from leanface.photos.alignment import Alignment
from leanface.photos.detector import FaceDetection
from leanface.reconstruction.surface import Surface

MESH_TEXTURE_PX = 1024
"""Side of the texture in a mesh of a face that has none of its own: the model's albedo is smooth."""


class Pose(NamedTuple):
    """How a head is turned and where it is, in the camera's frame: x right, y up, z towards the camera."""

    angles_rad: Float[np.ndarray, "3"]
    """Pitch about x, yaw about y, roll about z: the rotation is roll @ yaw @ pitch."""
    rotation: Float[np.ndarray, "3 3"]
    translation_m: Float[np.ndarray, "3"]


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """One face. Lengths in meters; photo pixels have x right, y down and centers at integers.

    Attributes:
        coefficients: float32 (257,), see `leanface.face.coefficients`.
        vertices: (V,3) in the model's frame: without pose.
        vertices_camera: (V,3) in the camera's frame: with it.
        normals: (V,3) unit normals in the model's frame.
        pose: the head's.
        landmarks: (5,2) of the reconstruction in the photo: image-left eye, image-right eye, nose tip, image-left and
            image-right mouth corner.
        alignment: how the crop that the network read lies in the photo; of a face that was decoded without a photo, the
            crop itself counts as the photo.
        detection: where the detector found the face; None without a photo.
        texture: sRGB (size, size, 3) in the surface's UV layout, filled everywhere; None if none was asked for.
    """

    coefficients: Float[np.ndarray, "257"]
    vertices: Float[np.ndarray, "vertices 3"]
    vertices_camera: Float[np.ndarray, "vertices 3"]
    normals: Float[np.ndarray, "vertices 3"]
    pose: Pose
    landmarks: Float[np.ndarray, "5 2"]
    alignment: Alignment
    surface: Surface = field(repr=False)
    detection: FaceDetection | None = None
    texture: UInt8[np.ndarray, "size size 3"] | None = None

    @property
    def vertices_photo(self) -> Float[np.ndarray, "vertices 3"]:
        """x and y in the photo (px), and 1 / depth (1/m; larger is nearer)."""
        return project(self.vertices_camera, self.alignment)

    @property
    def misfit(self) -> float:
        """How far the landmarks lie from where the detector found them, in mean distances of those from their middle.

        0 for a face that was decoded without a photo.
        """
        if self.detection is None:
            return 0.0
        found = self.detection.landmarks
        radius = np.linalg.norm(found - found.mean(0), axis=1).mean()
        return float(np.linalg.norm(self.landmarks - found, axis=1).mean() / radius)

    def save_mesh(self, path: str | PathLike[str], texture_format: TextureFormat = "jpeg") -> None:
        """Write the whole head as `path`'s suffix says (.glb, .obj, .ply, .usdz), with the texture, else the albedo.

        An .obj comes with NAME.mtl and NAME_texture.jpg beside it. Each file is replaced whole, or not at all.

        Args:
            texture_format: "jpeg", or "png": larger, slower and without loss.

        Raises:
            ArtifactError: the suffix is another one, or the file cannot be written.
        """
        path = Path(path)
        for name, content in self.encode_mesh(path.name, texture_format).items():
            atomic_write(path.parent / name, content)

    def encode_mesh(self, name: str = "face.glb", texture_format: TextureFormat = "jpeg") -> dict[str, bytes]:
        """Return what `save_mesh` writes, by file name; the mesh called `name` comes last.

        Raises:
            ArtifactError: the suffix is none of .glb, .obj, .ply and .usdz.
        """
        layout, texture = self.painted()
        encode_jpeg = self.surface.encode_jpeg
        return encode_mesh(name, layout, self.vertices, self.normals, texture, texture_format, encode_jpeg)

    def painted(self) -> tuple[UvLayout, UInt8[np.ndarray, "size size 3"]]:
        """Return the texture with its layout; without one, the model's albedo as a texture."""
        layout = self.surface.layout(MESH_TEXTURE_PX if self.texture is None else len(self.texture))
        if self.texture is not None:
            return layout, self.texture
        albedo = layout.sample(self.surface.head.albedo(self.coefficients[ALBEDO]))
        texture = (albedo * 255).round().astype(np.uint8)
        layout.painting.runs.spread(texture)
        return layout, texture

    def to_json(self) -> dict[str, Any]:
        """Return all but mesh and texture, for `json.dumps`: coefficients by group, pose, places in the photo."""
        detection = None
        if self.detection is not None:
            detection = {
                "box": _rounded(self.detection.box),
                "landmarks": _rounded(self.detection.landmarks),
                "score": round(self.detection.score, 4),
            }
        alignment = self.alignment
        return {
            "coefficients": {name: self.coefficients[part].tolist() for name, part in LAYOUT.items()},
            "pose": {
                **{
                    f"{name}_deg": round(math.degrees(angle), 3)
                    for name, angle in zip(("pitch", "yaw", "roll"), self.coefficients[ANGLES].tolist(), strict=True)
                },
                "rotation": self.pose.rotation.tolist(),
                "translation_m": self.pose.translation_m.tolist(),
            },
            "landmarks": _rounded(self.landmarks),
            "crop": {"scale": alignment.scale, "tx": alignment.tx, "ty": alignment.ty, "size": alignment.size},
            "detection": detection,
        }


def project(vertices_camera: Float[np.ndarray, "vertices 3"], alignment: Alignment) -> Float[np.ndarray, "vertices 3"]:
    """Project vertices to photo pixels and 1 / depth."""
    projected = geometry.project(vertices_camera, alignment.size)
    projected[:, :2] = alignment.photo_from_crop(projected[:, :2])
    return projected


def _rounded(pixels: np.ndarray) -> Any:
    """Round to a hundredth of a pixel, which is enough."""
    return np.round(np.asarray(pixels, np.float64), 2).tolist()
