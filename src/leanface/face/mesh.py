"""Faces as mesh files: OBJ with its texture, GLB and USDZ with the texture inside, PLY with vertex colors.

All are in meters (glTF demands it; the others say so in their headers), without pose: x to the image's right, y up
and z towards the camera. Texture coordinates have v up in OBJ and down in GLB, as each format wants it.

Source: glTF 2.0 (Khronos), 4.4 and 5; Wavefront OBJ and MTL; PLY (Turk, Stanford).
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from leanface.errors import ArtifactError
from leanface.face.glb import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, Glb
from leanface.face.jpeg import JpegEncoder, encode_jpeg
from leanface.face.uv_layout import UvLayout, bilinear

HEADER = "LeanFace; meters, x right, y up, z towards the camera"
TEXTURE = "_texture"
"""Ends the name of an OBJ's texture, before its suffix: NAME.jpg may be the photo that the face was read from."""

JPEG_QUALITY = 90

TextureFormat = Literal["jpeg", "png"]
TEXTURE_SUFFIXES: dict[TextureFormat, str] = {"jpeg": ".jpg", "png": ".png"}


class Mesh(NamedTuple):
    """A textured mesh: what a file holds, apart from its name."""

    vertices: Float32[np.ndarray, "corners 3"]
    normals: Float32[np.ndarray, "corners 3"]
    layout: UvLayout
    texture: UInt8[np.ndarray, "size size 3"]
    texture_format: TextureFormat
    encode_jpeg: JpegEncoder = encode_jpeg


def encode_mesh(
    name: str,
    layout: UvLayout,
    vertices: Float32[np.ndarray, "vertices 3"],
    normals: Float32[np.ndarray, "vertices 3"],
    texture: UInt8[np.ndarray, "size size 3"],
    texture_format: TextureFormat = "jpeg",
    encode_jpeg: JpegEncoder = encode_jpeg,
) -> dict[str, bytes]:
    """Return the contents of a mesh's files by name, in the order to write them: the one called `name` comes last.

    Vertices are split at seams of the texture, yet their normals are those of the closed surface.

    Args:
        name: its suffix is one of FORMATS.
        layout: the surface to write, and the layout of its texture.
        vertices: of the whole model, in meters; `normals` likewise, of length 1.
        texture: sRGB, with colors beyond the surface's rim too (see `leanface.face.uv_layout.spread`).
        texture_format: JPEG is smaller and written faster; PNG keeps every level.
        encode_jpeg: what does that.

    Raises:
        ArtifactError: the suffix is none of FORMATS.
        ValueError: `texture` is not uint8 of the layout's size, or its format is unknown.
    """
    stem, suffix = Path(name).stem, Path(name).suffix
    if suffix not in FORMATS:
        raise ArtifactError(f"cannot write a mesh as {name!r}; its name must end in {', '.join(FORMATS)}.")
    if texture_format not in TEXTURE_SUFFIXES:
        raise ValueError(f"expected a texture as {' or '.join(TEXTURE_SUFFIXES)}, got {texture_format!r}")
    if texture.dtype != np.uint8 or texture.shape != (layout.size, layout.size, 3):
        raise ValueError(
            f"expected a texture as a uint8 array of shape ({layout.size}, {layout.size}, 3), the UV layout's, got "
            f"{texture.dtype} {texture.shape}; scale floats in [0, 1] by 255 and round them."
        )
    corners, directions = (values.take(layout.vertex, axis=0) for values in (vertices, normals))
    mesh = Mesh(corners, directions, layout, texture, texture_format, encode_jpeg)
    return FORMATS[suffix](mesh, stem)


def texture_coordinates(layout: UvLayout) -> Float32[np.ndarray, "corners 2"]:
    """Convert from pixels, whose centers lie at integers, to 0 and 1 at the picture's edges; v points down."""
    return ((layout.pixel + 0.5) / layout.size).astype(np.float32)


def encoded_texture(mesh: Mesh) -> bytes:
    """Return the texture's file."""
    if mesh.texture_format == "jpeg":
        return mesh.encode_jpeg(mesh.texture, JPEG_QUALITY)
    content = io.BytesIO()
    Image.fromarray(mesh.texture).save(content, "png", compress_level=1)
    return content.getvalue()


def _glb(mesh: Mesh, stem: str) -> dict[str, bytes]:
    glb = Glb()
    primitive = surface_primitive(glb, mesh)
    image = encoded_texture(mesh)
    scene = {
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": stem}],
        "meshes": [{"name": stem, "primitives": [primitive]}],
        **glb.material(stem, image, f"image/{mesh.texture_format}"),
    }
    return {f"{stem}.glb": glb.encode(scene)}


def surface_primitive(glb: Glb, mesh: Mesh) -> dict[str, Any]:
    """Add a mesh's surface to a GLB; return the primitive of glTF that draws it with material 0."""
    attributes = {
        "POSITION": glb.accessor(mesh.vertices, ARRAY_BUFFER, bounds=True),
        "NORMAL": glb.accessor(mesh.normals, ARRAY_BUFFER),
        "TEXCOORD_0": glb.accessor(texture_coordinates(mesh.layout), ARRAY_BUFFER),
    }
    triangles = mesh.layout.triangles.astype(np.uint16 if len(mesh.vertices) <= 2**16 - 1 else np.uint32)
    return {"attributes": attributes, "indices": glb.accessor(triangles.ravel(), ELEMENT_ARRAY_BUFFER), "material": 0}


def _obj(mesh: Mesh, stem: str) -> dict[str, bytes]:
    image = f"{stem}{TEXTURE}{TEXTURE_SUFFIXES[mesh.texture_format]}"
    # The texture alone makes the color: it is multiplied by the diffuse one, and highlights come on top.
    material = f"# {HEADER}\nnewmtl {stem}{TEXTURE}\nKa 1 1 1\nKd 1 1 1\nKs 0 0 0\nmap_Kd {image}\n"
    coordinates = texture_coordinates(mesh.layout)
    coordinates[:, 1] = 1 - coordinates[:, 1]
    corners = mesh.layout.triangles + 1  # of vertices, texture coordinates and normals alike
    lines = [
        f"# {HEADER}\nmtllib {stem}.mtl\nusemtl {stem}{TEXTURE}\n",
        *(f"v {x:.8f} {y:.8f} {z:.8f}\n" for x, y, z in mesh.vertices.tolist()),
        *(f"vt {u:.8f} {v:.8f}\n" for u, v in coordinates.tolist()),
        *(f"vn {x:.6f} {y:.6f} {z:.6f}\n" for x, y, z in mesh.normals.tolist()),
        *(f"f {a}/{a}/{a} {b}/{b}/{b} {c}/{c}/{c}\n" for a, b, c in corners.tolist()),
    ]
    files = {image: encoded_texture(mesh), f"{stem}.mtl": material.encode()}
    return {**files, f"{stem}.obj": "".join(lines).encode()}


def _ply(mesh: Mesh, stem: str) -> dict[str, bytes]:
    """Write a PLY; vertices that were split at seams are one again, as colors of vertices need no seams."""
    _, first, merged = np.unique(mesh.layout.vertex, return_index=True, return_inverse=True)
    parts = [mesh.vertices, mesh.normals, bilinear(mesh.texture, mesh.layout.pixel).round()]
    names = ("x", "y", "z", "nx", "ny", "nz", "red", "green", "blue")
    fields = [(name, "<f4" if index < 6 else "u1") for index, name in enumerate(names)]
    vertices = np.empty(len(first), fields)
    for name, column in zip(names, np.concatenate(parts, axis=1)[first].T, strict=True):
        vertices[name] = column
    triangles = np.empty(len(mesh.layout.triangles), [("count", "u1"), ("corners", "<i4", 3)])
    triangles["count"], triangles["corners"] = 3, merged[mesh.layout.triangles]
    types = {"<f4": "float", "u1": "uchar"}
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment {HEADER}",
        f"element vertex {len(vertices)}",
        *(f"property {types[kind]} {name}" for name, kind in fields),
        f"element face {len(triangles)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    return {f"{stem}.ply": "\n".join(header).encode() + vertices.tobytes() + triangles.tobytes()}


def _usdz(mesh: Mesh, stem: str) -> dict[str, bytes]:
    from leanface.face.usdz import encode_usdz

    return encode_usdz(mesh, stem)


FORMATS: dict[str, Callable[[Mesh, str], dict[str, bytes]]] = {
    ".obj": _obj,
    ".glb": _glb,
    ".ply": _ply,
    ".usdz": _usdz,
}
"""By suffix: what turns a mesh and its name into the contents of files by name, in the order to write them."""
