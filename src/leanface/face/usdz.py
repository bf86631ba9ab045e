"""Faces as USDZ, which iPhones, iPads and Macs show without an app, by the library of OpenUSD (extra `usd`).

Source: OpenUSD, UsdGeomMesh, UsdPreviewSurface Specification 2.6 and Usdz File Format Specification 1.3.
"""

import importlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from leanface.errors import ArtifactError
from leanface.extras import missing_message
from leanface.face.glb import ROUGHNESS
from leanface.face.mesh import TEXTURE_SUFFIXES, Mesh, encoded_texture, texture_coordinates

CHANGED = 315_619_200
"""When all files in a package were changed, as they say: on 2 January 1980, as soon as a ZIP file can tell."""


def require_usd() -> None:
    """Raise ArtifactError, which says how to install it, if OpenUSD is missing."""
    try:
        importlib.import_module("pxr")
    except ModuleNotFoundError:
        raise ArtifactError(missing_message("pxr") or "pxr is not installed.") from None


def encode_usdz(mesh: Mesh, stem: str) -> dict[str, bytes]:
    """Return the package with its texture by file name.

    Raises:
        ArtifactError: OpenUSD is missing, or cannot write.
    """
    require_usd()
    usd: Any = importlib.import_module("pxr.UsdUtils")
    # What is in the package has names of its own: not every file's name is one in USD, too.
    with tempfile.TemporaryDirectory() as folder:
        texture = Path(folder) / f"texture{TEXTURE_SUFFIXES[mesh.texture_format]}"
        texture.write_bytes(encoded_texture(mesh))
        package, stage = Path(folder) / "head.usdz", _write_stage(Path(folder) / "head.usdc", mesh, texture.name)
        for part in (texture, stage):  # the package tells when they were changed: the same face gives the same bytes
            os.utime(part, (CHANGED, CHANGED))
        if not usd.CreateNewARKitUsdzPackage(str(stage), str(package)):
            raise ArtifactError(f"OpenUSD cannot write {stem}.usdz; write a .glb.")
        return {f"{stem}.usdz": package.read_bytes()}


def _write_stage(path: Path, mesh: Mesh, texture: str) -> str:
    """Write a head with its material, in meters and with y up; return the path."""
    names = ("Sdf", "Usd", "UsdGeom", "UsdShade", "Vt")
    modules: list[Any] = [importlib.import_module(f"pxr.{name}") for name in names]
    sdf, usd, geometry, shading, vt = modules
    types = sdf.ValueTypeNames
    stage = usd.Stage.CreateNew(str(path))
    geometry.SetStageUpAxis(stage, geometry.Tokens.y)
    geometry.SetStageMetersPerUnit(stage, 1.0)
    root = geometry.Xform.Define(stage, "/Head")
    stage.SetDefaultPrim(root.GetPrim())
    surface = geometry.Mesh.Define(stage, "/Head/Surface")
    points = vt.Vec3fArray.FromNumpy(np.ascontiguousarray(mesh.vertices))
    surface.CreatePointsAttr(points)
    surface.CreateExtentAttr(geometry.PointBased.ComputeExtent(points))
    triangles = mesh.layout.triangles
    surface.CreateFaceVertexCountsAttr(vt.IntArray.FromNumpy(np.full(len(triangles), 3, np.int32)))
    surface.CreateFaceVertexIndicesAttr(vt.IntArray.FromNumpy(np.ascontiguousarray(triangles.ravel(), np.int32)))
    surface.CreateNormalsAttr(vt.Vec3fArray.FromNumpy(np.ascontiguousarray(mesh.normals)))
    surface.SetNormalsInterpolation(geometry.Tokens.vertex)
    surface.CreateSubdivisionSchemeAttr(geometry.Tokens.none)
    coordinates = texture_coordinates(mesh.layout)
    coordinates[:, 1] = 1 - coordinates[:, 1]  # v points up
    st = geometry.PrimvarsAPI(surface).CreatePrimvar("st", types.TexCoord2fArray, geometry.Tokens.vertex)
    st.Set(vt.Vec2fArray.FromNumpy(coordinates))

    def shader(name: str, kind: str) -> Any:
        made = shading.Shader.Define(stage, f"/Head/Material/{name}")
        made.CreateIdAttr(kind)
        return made

    material = shading.Material.Define(stage, "/Head/Material")
    look, picture, reader = (
        shader("Look", "UsdPreviewSurface"),
        shader("Picture", "UsdUVTexture"),
        shader("Coordinates", "UsdPrimvarReader_float2"),
    )
    reader.CreateInput("varname", types.String).Set("st")
    picture.CreateInput("file", types.Asset).Set(texture)
    picture.CreateInput("sourceColorSpace", types.Token).Set("sRGB")
    picture.CreateInput("st", types.Float2).ConnectToSource(reader.CreateOutput("result", types.Float2))
    look.CreateInput("diffuseColor", types.Color3f).ConnectToSource(picture.CreateOutput("rgb", types.Float3))
    look.CreateInput("roughness", types.Float).Set(ROUGHNESS)
    look.CreateInput("metallic", types.Float).Set(0.0)
    material.CreateSurfaceOutput().ConnectToSource(look.CreateOutput("surface", types.Token))
    shading.MaterialBindingAPI.Apply(surface.GetPrim()).Bind(material)
    stage.GetRootLayer().Save()
    return str(path)
