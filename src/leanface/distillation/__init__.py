"""The small network learns from the original: its answers, the shape they mean, and where it looks."""
