"""The pipeline on a machine without network, DVC, Hydra and MLflow, and its way back from there. See docs/gpu.md."""
