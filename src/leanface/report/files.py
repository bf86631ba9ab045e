"""Reading, writing and copying the small files that stages hand on."""

import json
import os
import shutil
from pathlib import Path
from typing import Any, cast

from leanface.errors import ArtifactError

Json = dict[str, Any]


def read_json(path: Path) -> Json:
    """A JSON object.

    Raises:
        ArtifactError: missing, or not a JSON object.
    """
    try:
        contents: Any = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ArtifactError(f"{path} is not JSON ({error}); rebuild it with `dvc repro`.") from None
    if not isinstance(contents, dict):
        raise ArtifactError(f"{path} holds no JSON object; rebuild it with `dvc repro`.")
    return cast(Json, contents)


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: run `dvc repro`, which makes it.") from None


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}")
    staging.write_text(text, encoding="utf-8")
    os.replace(staging, path)


def write_json(path: Path, contents: Json) -> None:
    """Indented JSON, whole or not at all."""
    write_text(path, json.dumps(contents, indent=1) + "\n")


def copy_file(source: Path, target: Path) -> None:
    """Copy a file whole or not at all.

    Raises:
        ArtifactError: it is missing.
    """
    staging = target.with_name(f".{target.name}")
    try:
        shutil.copyfile(source, staging)
    except FileNotFoundError:
        raise ArtifactError(f"{source} is missing: run `dvc repro`, which makes it.") from None
    os.replace(staging, target)
