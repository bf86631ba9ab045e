"""Does an ONNX file compute what the PyTorch network computes?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanface.errors import ExportError
from leanface.networks.interface import INPUT_NAME, OUTPUT_NAME

Images = Float[np.ndarray, "batch 3 height width"]
Coefficients = Float[np.ndarray, "batch 257"]


@dataclass(frozen=True)
class Parity:
    """Relative L2 norm of the difference between an ONNX file's coefficients and PyTorch's.

    Attributes:
        relative_l2: over all samples together; this is what the tolerance is on.
        worst_relative_l2: of the sample that differs most.
        worst_sample: its index.
        largest_difference: of any coefficient, in that coefficient's unit.
        samples: how many images were compared.
        tolerance: what relative_l2 had to stay under.
    """

    relative_l2: float
    worst_relative_l2: float
    worst_sample: int
    largest_difference: float
    samples: int
    tolerance: float


def check_parity(
    network: nn.Module,
    model: onnx.ModelProto,
    images: Float[Tensor, "batch 3 height width"],
    tolerance: float,
) -> Parity:
    """Run both on the same images.

    The file runs in onnxruntime with its optimisations off, so that each node is computed as it is
    written: this is the meaning of the file, before any runtime's own rounding.

    Raises:
        ExportError: they differ by more than `tolerance`, or the file's output is not finite.
    """
    with torch.inference_mode():
        expected = network(images).numpy()
    got = _run_as_written(model, images.numpy())
    difference: Float[np.ndarray, " batch"] = np.linalg.norm(got - expected, axis=1)
    relative = difference / np.linalg.norm(expected, axis=1)
    worst = int(relative.argmax())
    parity = Parity(
        relative_l2=float(np.linalg.norm(difference) / np.linalg.norm(expected)),
        worst_relative_l2=float(relative[worst]),
        worst_sample=worst,
        largest_difference=float(np.abs(got - expected).max()),
        samples=len(images),
        tolerance=tolerance,
    )
    if not parity.relative_l2 <= tolerance:
        raise ExportError(
            "the ONNX file does not compute what PyTorch computes: relative L2 difference "
            f"{parity.relative_l2:.3g} over {parity.samples} images (sample {worst}: "
            f"{parity.worst_relative_l2:.3g}), allowed {tolerance:g}. "
            "Look at the first layer whose outputs differ, or raise the tolerance in conf/export/."
        )
    return parity


def _run_as_written(model: onnx.ModelProto, images: Images) -> Coefficients:
    options: Any = onnxruntime.SessionOptions()  # pyright: ignore[reportUnknownVariableType]
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    content, providers = model.SerializeToString(), ["CPUExecutionProvider"]
    session: Any = onnxruntime.InferenceSession(content, options, providers=providers)
    return session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]
