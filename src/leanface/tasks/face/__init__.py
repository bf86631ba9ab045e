"""A network that reads the 257 coefficients of a 3D morphable model out of an aligned photo of a face."""
