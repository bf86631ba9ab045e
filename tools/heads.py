"""Draw the packaged portraits and the heads that the shipped network makes of them.

    python -m tools.heads docs/results/reconstruct/heads.jpg

A row for each: the photo, the head as in the photo, and turned 40 degrees to either side.
"""

import argparse
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from leanface.photos.load import PACKAGED_PHOTOS, load_photo
from leanface.reconstruction import LeanFace
from leanface.reconstruction.pictures import VIEW_PX, preview

JPEG_QUALITY = 92


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path, help="file to write")
    path: Path = parser.parse_args().picture
    with LeanFace.load() as lean_face:
        rows = [_row(lean_face, load_photo(name)) for name in PACKAGED_PHOTOS]
    Image.fromarray(np.concatenate(rows)).save(path, quality=JPEG_QUALITY)


def _row(lean_face: LeanFace, photo: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "size 4*size 3"]:
    (face,) = lean_face.reconstruct(photo, texture_size=1024, faces="largest")
    portrait = ImageOps.fit(Image.fromarray(photo), (VIEW_PX, VIEW_PX), Image.Resampling.LANCZOS, centering=(0.5, 0.3))
    return np.concatenate([np.asarray(portrait), preview(face)], axis=1)


if __name__ == "__main__":
    main()
