"""Structured channel pruning: which channels matter, removing the others, and re-fitting what is left."""
