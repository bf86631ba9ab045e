"""The fast path on the CPU for tensors: `leanface.face.kernels`."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from leanface.face import kernels


def _for_tensors(kernel: Callable[..., np.ndarray]) -> Callable[..., Tensor]:
    """Let a function of arrays take CPU tensors, and return one."""

    def of_tensors(*arguments: Tensor | int) -> Tensor:
        return torch.from_numpy(kernel(*(each.numpy() if isinstance(each, Tensor) else each for each in arguments)))

    return of_tensors


visible_triangles = _for_tensors(kernels.visible_triangles)
pixel_barycentric = _for_tensors(kernels.pixel_barycentric)
interpolate = _for_tensors(kernels.interpolate)
draw = _for_tensors(kernels.draw)
vertex_normals = _for_tensors(kernels.vertex_normals)
irradiance = _for_tensors(kernels.irradiance)
