"""Handwritten digits: a small task, to try the whole pipeline on."""
