"""Folders that appear whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from leanface.errors import ArtifactError


@contextmanager
def staged(folder: Path) -> Generator[Path]:
    """A new, empty folder that takes `folder`'s place if the block ends without an error.

    Until then whatever is at `folder` stays as it is. What a killed process left beside it is removed by the next
    call; so no two may work on the same folder at once (of two that do, the first one fails).

    Raises:
        ArtifactError: something cannot be written: no space, no permission, a file where a folder must be.
    """
    prefix = f".{folder.name}-"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for leftover in folder.parent.glob(f"{prefix}*"):
            shutil.rmtree(leftover)
        workplace = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
        try:
            new = workplace / "new"
            new.mkdir()
            yield new
            if folder.exists():
                os.replace(folder, workplace / "old")
            os.replace(new, folder)
        finally:
            shutil.rmtree(workplace, ignore_errors=True)
    except OSError as error:
        raise ArtifactError(
            f"cannot write {folder}: {error}. Make room, or make {folder.parent} a folder that you may write to; "
            "what was there before is unchanged."
        ) from error
