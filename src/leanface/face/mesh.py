"""Faces as mesh files: OBJ with its texture, GLB with the texture inside, PLY with vertex colors.

All are in meters (glTF demands it; the others say so in their headers), without pose: x to the image's right, y up
and z towards the camera. Texture coordinates have v up in OBJ and down in GLB, as each format wants it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import scipy.ndimage as ndi
import torch
import trimesh
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from trimesh.exchange import gltf, obj, ply
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from leanface.errors import ArtifactError
from leanface.face.coefficients import split
from leanface.face.lighting import vertex_normals
from leanface.face.texture import UvMap, spread
from leanface.files import atomic_write

METRES_PER_DM = 0.1
HEADER = "LeanFace; meters, x right, y up, z towards the camera"
ROUGHNESS = 0.8
TEXTURE = "_texture"
"""Ends the name of an OBJ's texture, before .png: NAME.png may be the photo that the face was read from."""


def save_mesh(
    path: Path,
    uv_map: UvMap,
    coefficients: Float[Tensor, "257"],
    texture: UInt8[np.ndarray, "size size 3"] | None = None,
) -> None:
    """Write one face as `path`'s suffix says: .obj (with NAME.mtl and NAME_texture.png beside it), .glb or .ply.

    Every file is written whole or not at all. An .obj comes after the two that it refers to.

    Args:
        path: replaced if it exists.

    Raises:
        ArtifactError: the suffix is none of FORMATS, or a file cannot be written.
        ValueError: see `encode_mesh`.
    """
    for name, content in encode_mesh(path.name, uv_map, coefficients, texture).items():
        atomic_write(path.parent / name, content)


def encode_mesh(
    name: str,
    uv_map: UvMap,
    coefficients: Float[Tensor, "257"],
    texture: UInt8[np.ndarray, "size size 3"] | None = None,
) -> dict[str, bytes]:
    """Return the contents of a mesh's files by name, in the order to write them: the one called `name` comes last.

    Args:
        name: its suffix is one of FORMATS.
        uv_map: the surface to write, and the layout of its texture.
        coefficients: identity, expression and albedo are used.
        texture: sRGB, with colors beyond the surface's rim too (see `leanface.face.texture.spread`). By default the
            model's albedo.

    Raises:
        ArtifactError: the suffix is none of FORMATS.
        ValueError: `texture` is not uint8 of the map's size.
    """
    stem, suffix = Path(name).stem, Path(name).suffix
    if suffix not in FORMATS:
        raise ArtifactError(f"cannot write a mesh as {name!r}; its name must end in {', '.join(FORMATS)}.")
    return FORMATS[suffix](face_mesh(uv_map, coefficients, texture), stem)


@torch.no_grad()
def face_mesh(
    uv_map: UvMap,
    coefficients: Float[Tensor, "257"],
    texture: UInt8[np.ndarray, "size size 3"] | None = None,
) -> trimesh.Trimesh:
    """Return the textured mesh itself; arguments and errors as for `encode_mesh`.

    Vertices are split at seams of the texture, yet their normals are those of the closed surface.
    """
    parts, model = split(coefficients[None].float()), uv_map.model
    if texture is None:
        albedo = (uv_map.albedo(coefficients[None])[0] * 255).round().byte().cpu().numpy()
        texture = spread(albedo, uv_map.mask.cpu().numpy())
    if texture.dtype != np.uint8 or texture.shape != (uv_map.size, uv_map.size, 3):
        raise ValueError(
            f"expected a texture as a uint8 array of shape ({uv_map.size}, {uv_map.size}, 3), the UV map's, got "
            f"{texture.dtype} {texture.shape}; scale floats in [0, 1] by 255 and round them."
        )
    vertices = model.vertices(parts.identity, parts.expression)
    normals = vertex_normals(vertices, model.triangles)
    # Pixel centers lie at integers, texture coordinates 0 and 1 at the picture's edges; v points up.
    uv = (uv_map.pixel + 0.5) / uv_map.size
    uv[:, 1] = 1 - uv[:, 1]
    material = PBRMaterial(
        baseColorTexture=Image.fromarray(texture),
        metallicFactor=0.0,
        roughnessFactor=ROUGHNESS,
    )
    return trimesh.Trimesh(
        vertices=_array(vertices[0, uv_map.vertex]) * METRES_PER_DM,
        faces=_array(uv_map.triangles),
        vertex_normals=_array(normals[0, uv_map.vertex]),
        visual=TextureVisuals(uv=_array(uv), material=material),
        process=False,
    )


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().numpy()


def _obj(mesh: trimesh.Trimesh, stem: str) -> dict[str, bytes]:
    visual: Any = mesh.visual
    # The texture alone makes the color: it is multiplied by the diffuse one, and highlights come on top.
    white, black = np.full(3, 255, np.uint8), np.zeros(3, np.uint8)
    material = SimpleMaterial(
        visual.material.baseColorTexture, diffuse=white, ambient=white, specular=black, name=f"{stem}{TEXTURE}"
    )
    textured = mesh.copy(include_cache=True)  # that is where trimesh keeps the normals
    textured.visual = TextureVisuals(uv=visual.uv, material=material)
    text, parts = cast(Any, obj).export_obj(
        textured, include_normals=True, return_texture=True, mtl_name=f"{stem}.mtl", header=HEADER
    )
    return {**parts, f"{stem}.obj": text.encode()}


def _glb(mesh: trimesh.Trimesh, stem: str) -> dict[str, bytes]:
    return {f"{stem}.glb": gltf.export_glb(trimesh.Scene({stem: mesh}), include_normals=True)}


def _ply(mesh: trimesh.Trimesh, stem: str) -> dict[str, bytes]:
    """Vertices that were split at seams are one again: colors of vertices need no seams."""
    visual: Any = mesh.visual
    texture = np.asarray(visual.material.baseColorTexture)
    height, width = texture.shape[:2]
    at = (1 - visual.uv[:, 1]) * height - 0.5, visual.uv[:, 0] * width - 0.5
    channels = [cast(Any, ndi).map_coordinates(texture[..., k], at, order=1, mode="nearest") for k in range(3)]
    _, first, merged = np.unique(mesh.vertices, axis=0, return_index=True, return_inverse=True)
    whole = trimesh.Trimesh(
        vertices=mesh.vertices[first],
        faces=merged[mesh.faces],
        vertex_normals=mesh.vertex_normals[first],
        vertex_colors=np.stack(channels, -1)[first],
        process=False,
    )
    content = ply.export_ply(whole, vertex_normal=True)
    return {f"{stem}.ply": content.replace(b"https://github.com/mikedh/trimesh", HEADER.encode(), 1)}


FORMATS: dict[str, Callable[[trimesh.Trimesh, str], dict[str, bytes]]] = {".obj": _obj, ".glb": _glb, ".ply": _ply}
"""By suffix: what turns a mesh and its name into the contents of files by name, in the order to write them."""
