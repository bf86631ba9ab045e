"""The names by which an exported network is fed, read and described, in ONNX files and engines alike."""

INPUT_NAME = "images"
"""float32 (B,3,H,W), RGB in [0,1]."""

OUTPUT_NAME = "coefficients"
"""float32 (B,outputs)."""

METADATA_PREFIX = "leanface."
"""Of the metadata keys inside an ONNX file: version, precision, input, task, outputs (in files of LeanFace 0.1
coefficients), license and, of a compressed network, teacher."""
