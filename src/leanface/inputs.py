"""A user's own files that the configuration names: their digests go into it, so that DVC sees when one is replaced."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from leanface.config import Config, load_config
from leanface.errors import ConfigError, LeanFaceError

KEYS = (
    ("task", "name"),
    ("data", "morphable_model"),
    ("data", "folder", "path"),
    ("teacher", "path"),
    ("teacher", "start_from"),
    ("distill", "start_from"),
)
"""Keys whose values are paths of a user's own."""

NAMES = ("packaged", "modelscope")
"""Values of data.morphable_model that are no paths."""

READ = ("spec.json", "weights.safetensors", "pytorch_model.pt", "assets/BFM_model_front.mat")
"""What is read of a folder with a network or a morphable model: a bundle's files, or those of ModelScope's snapshot."""

SUFFIX = "_sha256"
"""Ends the key that holds the digest of what another key names."""


def locate(name: str) -> Path:
    """Return the path of a user's own file or folder.

    A relative path starts at the project's root folder; in the checkout of an experiment, which has only what Git and
    DVC track, also at that of the project that it was taken from.
    """
    project = Path(os.environ.get("DVC_ROOT", ""), name)
    return project if not Path(name).exists() and project.exists() else Path(name)


def record_inputs(config: Config, last: Path) -> Config:
    """Fill in the digest of every file and folder that a configuration names.

    Args:
        config: without digests.
        last: file of the last run's configuration, if there was one. It tells the digest of what is gone by now, and
            may not be needed any more since its results are in DVC's cache.

    Raises:
        ConfigError: a path was never there.
    """
    tree, before = config.model_dump(), dict[str, Any]()
    with suppress(LeanFaceError):  # there was none, or one of another version
        before = load_config(last).model_dump()
    for *parents, key in KEYS:
        section, old = _at(tree, parents), _at(before, parents)
        name = section.get(key)
        if parents == ["task"]:  # FILE.py:CLASS, or a task of LeanFace's own
            name, colon, _ = str(name).partition(":")
            name = name if colon else None
        if name is None or name in NAMES:
            continue
        digest: Callable[[Path], str] = _listing if parents == ["data", "folder"] else _digest
        if parents == ["task"]:
            digest = _plain
        try:
            section[key + SUFFIX] = digest(locate(name))
        except OSError as error:
            section[key + SUFFIX] = old.get(key + SUFFIX) if old.get(key) == section[key] else None
            if section[key + SUFFIX] is None:
                raise ConfigError(
                    f"{'.'.join([*parents, key])}: {name} cannot be read ({error.strerror}). Name a file or folder "
                    "that is there; a relative path starts at the project's root folder."
                ) from None
    return type(config).model_validate(tree)


def _at(tree: dict[str, Any], parents: list[str]) -> dict[str, Any]:
    for name in parents:
        tree = tree.get(name) or {}
    return tree


def _digest(path: Path) -> str:
    """Hash a file, or what is read of a folder."""
    hasher = hashlib.sha256()
    for file in [path / name for name in READ if (path / name).is_file()] if path.is_dir() else [path]:
        with file.open("rb") as stream:
            hasher.update(hashlib.file_digest(stream, "sha256").digest())
    return hasher.hexdigest()


def _plain(path: Path) -> str:
    """Hash a file alone: bundles name a task's file by that."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _listing(folder: Path) -> str:
    """Hash the names and sizes of a folder's files: there may be many gigabytes of photos."""
    hasher = hashlib.sha256()
    folder.stat()
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file = Path(parent, name)
            hasher.update(os.fsencode(f"{file.relative_to(folder)}\0{file.lstat().st_size}\0"))
    return hasher.hexdigest()
