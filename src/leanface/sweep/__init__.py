"""Sweeps: Hydra multirun over DVC experiments, comparison of what they gave, and promotion of the best."""
