"""The INT8 network on an NVIDIA GPU by kernels of our own: read from its ONNX file, fused, tuned, as a CUDA graph.

`plan` reads the file, `kernels` are Triton's, `tuning` chooses their tiles, `executor` owns memory and launches.
"""
