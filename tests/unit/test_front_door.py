"""`import leanface`: what a user of the library sees first."""

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import leanface
from leanface import paths


@pytest.mark.parametrize("name", leanface.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(leanface, name) is not None
    assert name in dir(leanface)


def test_the_version_is_that_of_the_distribution() -> None:
    assert leanface.__version__ == importlib.metadata.version("leanface")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'LeanFce'"):
        leanface.LeanFce  # noqa: B018


def test_a_file_an_image_and_an_array_are_the_same_photo(tmp_path: Path) -> None:
    photo = leanface.load_photo("astronaut")
    file = tmp_path / "photo.png"
    Image.fromarray(photo).save(file)
    with leanface.LeanFace.load() as lean_face:
        readings = [lean_face.reconstruct(each, faces="largest") for each in (photo, file, str(file), Image.open(file))]
    first = readings[0][0].coefficients
    assert all(np.array_equal(reading[0].coefficients, first) for reading in readings)


def test_meshes_and_networks_are_named_by_strings_too(tmp_path: Path) -> None:
    with leanface.LeanFace.load(str(paths.PACKAGED_MODEL)) as lean_face:
        (face,) = lean_face.reconstruct("astronaut", faces="largest")
    face.save_mesh(str(tmp_path / "face.ply"))
    assert (tmp_path / "face.ply").stat().st_size > 10_000
