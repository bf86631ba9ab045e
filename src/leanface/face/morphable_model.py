"""The 3D morphable model: a mean face plus linear identity, expression and albedo components.

Source: Blanz and Vetter, SIGGRAPH 1999. The packaged model's components come from openly licensed data, see
`tools.face_model`. Units are decimeters; x points to the image's right, y up and z towards the camera.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from leanface.face.coefficients import EXPRESSION, IDENTITY
from leanface.face.head_model import FORMAT_VERSION, load_head_model
from leanface.files import staged_file
from leanface.paths import PACKAGED_MORPHABLE_MODEL

T = TypeVar("T")


class MorphableModel(nn.Module):
    """Vertices and albedo as linear functions of coefficients that count standard deviations.

    All tensors are buffers, so that `.to(device)` moves the model; none is saved in a state dict.
    """

    mean_vertices: Float[Tensor, "vertices 3"]
    identity_basis: Float[Tensor, "80 vertices*3"]
    expression_basis: Float[Tensor, "64 vertices*3"]
    mean_albedo: Float[Tensor, "vertices 3"]
    albedo_basis: Float[Tensor, "80 vertices*3"]
    triangles: Int[Tensor, "triangles 3"]
    uv: Float[Tensor, "vertices 2"]
    face_mask: Bool[Tensor, " vertices"]
    landmarks: Int[Tensor, "5"]

    def __init__(
        self,
        *,
        mean_vertices: Tensor,
        identity_basis: Tensor,
        expression_basis: Tensor,
        mean_albedo: Tensor,
        albedo_basis: Tensor,
        triangles: Tensor,
        uv: Tensor,
        face_mask: Tensor,
        landmarks: Tensor,
    ) -> None:
        super().__init__()
        for name, value in {
            "mean_vertices": mean_vertices,
            "identity_basis": identity_basis,
            "expression_basis": expression_basis,
            "mean_albedo": mean_albedo,
            "albedo_basis": albedo_basis,
            "triangles": triangles.long(),
            "uv": uv,
            "face_mask": face_mask.bool(),
            "landmarks": landmarks.long(),
        }.items():
            self.register_buffer(name, value, persistent=False)

    @property
    def vertex_count(self) -> int:
        return len(self.mean_vertices)

    def vertices(
        self, identity: Float[Tensor, "batch 80"], expression: Float[Tensor, "batch 64"]
    ) -> Float[Tensor, "batch vertices 3"]:
        """Compute the shape in the model's frame, in decimeters."""
        offsets = torch.addmm(identity @ self.identity_basis, expression, self.expression_basis)
        return offsets.view(len(identity), -1, 3) + self.mean_vertices

    def albedo(self, albedo: Float[Tensor, "batch 80"]) -> Float[Tensor, "batch vertices 3"]:
        """Compute skin color under white light, clipped to [0,1]."""
        return (self.mean_albedo + (albedo @ self.albedo_basis).view(len(albedo), -1, 3)).clamp(0.0, 1.0)


def columns_of(vertices: Int[Tensor, " count"]) -> Int[Tensor, " count*3"]:
    """Select the columns of a basis that belong to these vertices, three to each."""
    return (3 * vertices[:, None] + torch.arange(3, device=vertices.device)).flatten()


def per_model(measure: Callable[[MorphableModel], T]) -> Callable[[MorphableModel], T]:
    """Remember what a function says of a model, for as long as the model lives and stays on its device."""
    known: WeakKeyDictionary[MorphableModel, tuple[torch.device, T]] = WeakKeyDictionary()

    @functools.wraps(measure)
    def remembered(model: MorphableModel) -> T:
        device, answer = known.get(model, (None, None))
        if answer is None or device != model.mean_vertices.device:
            # Whoever asks first may be in inference mode, whose tensors a later training could not use.
            with torch.inference_mode(False), torch.no_grad():
                answer = measure(model)
            known[model] = model.mean_vertices.device, answer
        return answer

    return remembered


def load_morphable_model(path: Path = PACKAGED_MORPHABLE_MODEL) -> MorphableModel:
    """Read a packed model and subdivide its shape components once (subdivision is linear, so it commutes).

    Raises:
        ArtifactError: the file is missing, truncated or of another format.
    """
    head = load_head_model(path)
    coarse_count = len(head.coarse_mean)

    def subdivided(basis: np.ndarray) -> Tensor:
        per_vertex = basis.reshape(len(basis), coarse_count, 3).transpose(1, 0, 2).reshape(coarse_count, -1)
        dense = head.subdivision.apply(per_vertex).reshape(-1, len(basis), 3)
        return torch.from_numpy(np.ascontiguousarray(dense.transpose(1, 0, 2)).reshape(len(basis), -1))

    return MorphableModel(
        mean_vertices=torch.from_numpy(head.mean_vertices),
        identity_basis=subdivided(head.components[IDENTITY]),
        expression_basis=subdivided(head.components[EXPRESSION]),
        mean_albedo=torch.from_numpy(head.mean_albedo),
        albedo_basis=torch.from_numpy(head.albedo_components),
        triangles=torch.from_numpy(head.triangles),
        uv=torch.from_numpy(head.uv),
        face_mask=torch.from_numpy(head.face_mask),
        landmarks=torch.from_numpy(head.landmarks),
    )


def save_morphable_model(model: MorphableModel, path: Path) -> None:
    """Write a model so that loading it gives the same bits: components in float32, nothing left to subdivide."""
    count = model.vertex_count
    bases = {"identity": model.identity_basis, "expression": model.expression_basis, "albedo": model.albedo_basis}
    arrays: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "mean_vertices": model.mean_vertices,
        "albedo_mean": model.mean_albedo,
        "triangles": model.triangles.int(),
        "uv": model.uv,
        "face_mask": model.face_mask,
        "landmarks": model.landmarks,
        "subdivision_data": np.ones(count, np.float32),
        "subdivision_indices": np.arange(count),
        "subdivision_indptr": np.arange(count + 1),
    }
    for name, basis in bases.items():
        arrays |= {f"{name}_q": basis, f"{name}_scale": np.ones(len(basis), np.float32)}
    with staged_file(path) as staging, staging.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
