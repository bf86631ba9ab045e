"""The names by which an exported network is fed, read and described, in ONNX files and engines alike."""

from typing import Literal

INPUT_NAME = "images"
"""float32 (B,3,H,W), RGB in [0,1]."""

OUTPUT_NAME = "coefficients"
"""float32 (B,outputs)."""

METADATA_PREFIX = "leanface."
"""Of the metadata keys inside an ONNX file: version, precision, input, task, outputs (in files of LeanFace 0.1
coefficients), license, of an INT8 file flavor and, of a compressed network, teacher."""

Flavor = Literal["cpu", "tensorrt"]
"""How an INT8 file quantizes feature maps that cannot be negative (docs/decisions/0017-flavors.md): `cpu` to the 256
levels of an unsigned byte, which processors with VNNI multiply exactly; `tensorrt` to the 128 that a signed byte has
too, which are right everywhere."""
