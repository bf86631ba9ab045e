"""A folder with a photo of several faces, prepared twice."""

import shutil
from pathlib import Path

from PIL import Image

from leanface.photos.alignment import TEMPLATE_224
from leanface.photos.load import PACKAGED_PHOTOS, load_photo
from leanface.synthesis.folder import prepare_folder
from tests.unit.synthesis.test_folder import SPLITS, source


def test_all_faces_of_a_photo_stay_together(photo_folder: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(photo_folder, photos)
    both = [Image.fromarray(load_photo(name)) for name in PACKAGED_PHOTOS]
    pair = Image.new("RGB", (both[0].width + both[1].width, max(picture.height for picture in both)))
    pair.paste(both[0], (0, 0))
    pair.paste(both[1], (both[0].width, 0))
    pair.save(photos / "pair.png")
    found = {
        faces: prepare_folder(source(photos, faces), 64, TEMPLATE_224, tmp_path / faces)["splits"]
        for faces in ("largest", "all")
    }
    assert sum(entry["count"] for entry in found["largest"].values()) == 13
    for faces, count in {"largest": 1, "all": 2}.items():
        held = [[face["photo"] for face in found[faces][split]["faces"]].count("pair.png") for split in SPLITS]
        assert sorted(held) == [0, 0, count]
