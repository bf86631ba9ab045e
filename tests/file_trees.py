"""Folders as tests see them: what lies in them, and how results get there."""

import hashlib
import json
from pathlib import Path
from typing import Any

from leanface.files import MARK, staged


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with its content, hidden ones too, but for marks; links by where they lead."""
    return {
        path.relative_to(folder).as_posix(): f"-> {path.readlink()}" if path.is_symlink() else path.read_text()
        for path in sorted(folder.rglob("*"))
        if (path.is_symlink() or path.is_file()) and path.name != MARK
    }


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(folder: Path, **contents: str) -> None:
    """Write a result of these files."""
    with staged(folder) as new:
        for name, content in contents.items():
            (new / name).write_text(content)


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest of prepared faces."""
    return json.loads((folder / "manifest.json").read_text())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
