"""Does an ONNX file compute what the PyTorch network computes, as it is written and in every runtime?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leanface.catalog import Subject
from leanface.errors import ExportError
from leanface.networks.interface import INPUT_NAME, OUTPUT_NAME

Images = Float[np.ndarray, "batch 3 height width"]
Coefficients = Float[np.ndarray, "batch 257"]
Run = Callable[[Images], Coefficients]

AS_WRITTEN = "as written"
"""How `as_written` is called among the runtimes."""

FAINT = 2 / 255
"""Noise on a blank image, as from a camera. Without any, all pixels of a feature map are alike: one value next to a
rounding boundary takes the whole map with it, and nothing averages out (docs/decisions/0003)."""

LARGER_PX = (16, 32)
"""What an image of another size has more in height and in width."""


@dataclass(frozen=True)
class Parity:
    """Relative L2 norm of the difference between a file's coefficients in one runtime and PyTorch's, for one input.

    Attributes:
        runtime: where the file ran.
        input: a name in `parity_inputs`.
        shape: of that input.
        relative_l2: over all samples together; this is what the tolerance is on.
        worst_relative_l2: of the sample that differs most.
        worst_sample: its index.
        largest_difference: of any coefficient, in that coefficient's unit.
        tolerance: what relative_l2 had to stay under.
    """

    runtime: str
    input: str
    shape: tuple[int, ...]
    relative_l2: float
    worst_relative_l2: float
    worst_sample: int
    largest_difference: float
    tolerance: float


def parity_inputs(
    images: Float[Tensor, "batch 3 height width"], subject: Subject, *, dynamic_size: bool
) -> dict[str, Float[Tensor, "_ 3 _ _"]]:
    """What a file is compared on, by name: samples of its task, and what a service may be sent as well.

    Args:
        images: the samples.
        subject: what they are called.
        dynamic_size: whether the file takes images of another size.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(2, *images.shape[1:], generator=generator).round()
    faint = FAINT * torch.rand(1, *images.shape[1:], generator=generator)
    inputs = {
        subject.samples: images,
        f"one {subject.sample}": images[:1],
        f"seven {subject.samples}": images[torch.arange(7) % len(images)],
        "black": faint,
        "white": 1.0 - faint,
        "black and white noise": noise,  # the largest contrast that the input contract allows
    }
    if dynamic_size:
        height, width = (side + more for side, more in zip(images.shape[2:], LARGER_PX, strict=True))
        inputs["another size"] = F.interpolate(images[:2], size=(height, width), mode="bilinear").contiguous()
    return inputs


def check_parity(
    network: nn.Module,
    runs: Mapping[str, Run],
    inputs: Mapping[str, Float[Tensor, "batch 3 height width"]],
    tolerance: float,
) -> list[Parity]:
    """Compare the network with each way to run its file, on each input.

    Args:
        runs: by the runtime's name; `AS_WRITTEN` is the file's meaning, the others add their own rounding.

    Raises:
        ExportError: some differ by more than `tolerance`, or are not finite; names the runtimes and inputs.
    """
    rows: list[Parity] = []
    for name, images in inputs.items():
        with torch.inference_mode():
            expected = network(images).numpy()
        for runtime, run in runs.items():
            rows.append(_compare(runtime, name, run(images.numpy()), expected, images, tolerance))
    failed = [row for row in rows if not row.relative_l2 <= tolerance]
    if failed:
        lines = "".join(
            f"\n  {row.runtime}, {row.input} {row.shape}: {row.relative_l2:.3g}, sample {row.worst_sample}: "
            f"{row.worst_relative_l2:.3g}"
            for row in failed
        )
        raise ExportError(
            "the ONNX file does not compute what PyTorch computes: relative L2 difference, "
            f"allowed {tolerance:g}:{lines}\n"
            "Look at the first layer whose outputs differ, or raise the tolerance in conf/export/."
        )
    return rows


def headline(rows: Sequence[Parity]) -> dict[str, float]:
    """The difference on samples as the file is written, and the largest of any sample in any runtime."""
    samples = next(row for row in rows if row.runtime == AS_WRITTEN)
    return {
        "parity_relative_l2": samples.relative_l2,
        "parity_worst_relative_l2": max(row.worst_relative_l2 for row in rows),
    }


def _compare(
    runtime: str, name: str, got: Coefficients, expected: Coefficients, images: Tensor, tolerance: float
) -> Parity:
    difference: Float[np.ndarray, " batch"] = np.linalg.norm(got - expected, axis=1)
    relative = difference / np.linalg.norm(expected, axis=1)
    worst = int(relative.argmax())
    return Parity(
        runtime=runtime,
        input=name,
        shape=tuple(images.shape),
        relative_l2=float(np.linalg.norm(difference) / np.linalg.norm(expected)),
        worst_relative_l2=float(relative[worst]),
        worst_sample=worst,
        largest_difference=float(np.abs(got - expected).max()),
        tolerance=tolerance,
    )


def as_written(model: onnx.ModelProto) -> Run:
    """Runs a file in onnxruntime with its optimizations off, so that each node is computed as it is written."""
    options: Any = onnxruntime.SessionOptions()  # pyright: ignore[reportUnknownVariableType]
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    content, providers = model.SerializeToString(), ["CPUExecutionProvider"]
    session: Any = onnxruntime.InferenceSession(content, options, providers=providers)
    return lambda images: session.run([OUTPUT_NAME], {INPUT_NAME: images})[0]
