"""The network in a form that other software runs: without PyTorch, or in Triton Inference Server."""
