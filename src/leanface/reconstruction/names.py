"""Names of results: each its own, on any file system, and none within another's."""

import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

BYTES_MAX = 250
"""Of a name. File systems take 255; a comparison's sheet adds ".png"."""


def result_names(files: Sequence[str]) -> list[str]:
    """Name the result of each file: `a/b` for `a/b.jpg`.

    No two names are alike where upper and lower case, or the ways to write an accent, do not count. No name is a folder
    that another one lies in. A file that cannot have its own name for that gets its suffix as well, as in `me_jpg` and
    `me_png`; then a number.

    Args:
        files: relative paths with "/".
    """
    parts = [_split(file) for file in files]
    plain = [_joined(folder, stem) for folder, stem, _ in parts]
    keys = [_key(name) for name in plain]
    wanted = Counter(keys)
    taken = {_key(str(parent)) for folder in {folder for folder, _, _ in parts} for parent in _with_parents(folder)}
    own = [wanted[key] == 1 and key not in taken for key in keys]
    taken.update(key for key, is_own in zip(keys, own, strict=True) if is_own)
    numbers = Counter[str]()
    names: list[str] = []
    for (folder, stem, suffix), name, is_own in zip(parts, plain, own, strict=True):
        free, ending = is_own, suffix.replace(".", "_")
        first = name if free else _key(_joined(folder, stem, ending))
        while not free:
            numbers[first] += 1
            number = f"_{numbers[first]}" if numbers[first] > 1 else ""
            name = _joined(folder, stem, ending + number)
            free = _key(name) not in taken
        taken.add(_key(name))
        names.append(name)
    return names


def _split(file: str) -> tuple[str, str, str]:
    """Split a path into the folder with its "/" or "", the name without its suffix, and the suffix."""
    folder, slash, name = file.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    return (folder + slash, stem, dot + suffix) if stem.strip(".") else (folder + slash, name, "")


def _with_parents(folder: str) -> Sequence[PurePosixPath]:
    path = PurePosixPath(folder)
    return path, *path.parents


def _joined(folder: str, stem: str, ending: str = "") -> str:
    """Name a result in its folder: not hidden, not too long, without the spaces and dots that Windows cuts off."""
    visible = "_" + stem.lstrip(".") if stem.startswith(".") else stem
    encoded = os.fsencode(visible)
    if len(encoded) + len(ending) > BYTES_MAX:
        visible = encoded[: BYTES_MAX - len(os.fsencode(ending))].decode("utf-8", "ignore")
    return folder + (visible.rstrip(" .") or "_") + ending


def _key(name: str) -> str:
    """Return the same key for all names that some file system takes for the same."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
