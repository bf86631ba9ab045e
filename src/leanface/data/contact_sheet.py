"""Many images in one."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image


def contact_sheet(images: UInt8[np.ndarray, "count size size 3"], columns: int, path: Path) -> None:
    """Tile images into one PNG."""
    rows = len(images) // columns
    size = images.shape[1]
    tiles = images[: rows * columns].reshape(rows, columns, size, size, 3)
    Image.fromarray(tiles.transpose(0, 2, 1, 3, 4).reshape(rows * size, columns * size, 3)).save(path)
