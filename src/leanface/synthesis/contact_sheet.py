"""Many images in one."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from leanface.files import staged_file
from leanface.synthesis.dataset import FaceDataset

COLUMNS = 12
ROWS = 2
GAP_PX = 2
MARGIN_PX = 12
TITLE_HEIGHT_PX = 34
TITLE_FONT_PX = 17
TITLE_COLOR = "#24292f"


def prepared_sheet(splits: Mapping[str, FaceDataset], photos: Mapping[str, Path], path: Path) -> None:
    """Draw each split's first faces, and the aligned photos, each under a title, into one PNG."""
    sections = {
        f"{name}: {min(ROWS * COLUMNS, len(faces))} of {len(faces)} faces": np.array(faces.images[: ROWS * COLUMNS])
        for name, faces in splits.items()
    }
    crops = [np.asarray(Image.open(file).convert("RGB")) for file in photos.values()]
    sections[f"photos: {', '.join(photos)}"] = np.stack(crops)
    grids = {title: _tile(images, COLUMNS, GAP_PX) for title, images in sections.items()}

    width = max(grid.shape[1] for grid in grids.values()) + 2 * MARGIN_PX
    height = sum(TITLE_HEIGHT_PX + grid.shape[0] for grid in grids.values()) + MARGIN_PX
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(TITLE_FONT_PX)
    top = 0
    for title, grid in grids.items():
        draw.text((MARGIN_PX, top + TITLE_HEIGHT_PX / 2), title, fill=TITLE_COLOR, font=font, anchor="lm")
        sheet.paste(Image.fromarray(grid), (MARGIN_PX, top + TITLE_HEIGHT_PX))
        top += TITLE_HEIGHT_PX + grid.shape[0]
    with staged_file(path) as staging:
        sheet.save(staging)


def _tile(
    images: UInt8[np.ndarray, "count size size 3"], columns: int, gap: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Tile images row by row on white, `gap` pixels apart; fewer images than columns make a short row."""
    count, size = images.shape[:2]
    columns = min(columns, count)
    rows, pitch = -(-count // columns), size + gap
    grid = np.full((rows * pitch - gap, columns * pitch - gap, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * pitch, index % columns * pitch
        grid[top : top + size, left : left + size] = image
    return grid
