"""Deprecated alias of `leanface.photos.load`, where 0.1's documentation imported `load_photo` from."""

from leanface.photos.load import PACKAGED_PHOTOS, load_photo, photo_path

__all__ = ["PACKAGED_PHOTOS", "load_photo", "photo_path"]
