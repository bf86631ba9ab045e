"""Many images in one."""

import math
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def contact_sheet(images: UInt8[np.ndarray, "count size size 3"], columns: int, path: Path) -> None:
    """Tile images into one PNG; what is missing in the last row is white."""
    columns = min(columns, len(images))
    rows, size = math.ceil(len(images) / columns), images.shape[1]
    blank = np.full((rows * columns - len(images), size, size, 3), 255, np.uint8)
    tiles = np.concatenate([images, blank]).reshape(rows, columns, size, size, 3)
    Image.fromarray(tiles.transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)).save(path)
