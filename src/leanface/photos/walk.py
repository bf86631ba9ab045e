"""Looks through folders of photos."""

import fnmatch
import logging
import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from leanface.files import MARK, marked_files

SYSTEM_FOLDERS = {"$RECYCLE.BIN", "@eaDir", "System Volume Information", "__MACOSX", "lost+found"}
"""What operating systems and NAS boxes keep thumbnails and deleted files in, besides hidden folders."""

logger = logging.getLogger(__name__)


def walk(root: Path, depth: int | None = None) -> tuple[list[Path], int]:
    """List the files in a folder and in those below it, sorted.

    Hidden files and folders are left out, and so are LeanFace's own results. Linked folders are followed. Each folder
    is looked through once, under its own name rather than a link's; links that lead in a circle end there.

    Args:
        depth: how many levels to look through; 1 is the folder's own files.

    Returns:
        the files, and how many of LeanFace's own were left out.

    Raises:
        OSError: `root` cannot be read. A folder below it that cannot be read is named in the log and left out.
    """
    seen: set[tuple[int, int]] = set()
    ours = {parent / name for parent in root.absolute().parents for name in marked_files(parent)}
    files: list[Path] = []
    left_out = 0
    folders, links = deque([(root, 1)]), deque[tuple[Path, int]]()
    while folders or links:
        folder, level = (folders or links).popleft()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = list(listing)
        except OSError as error:
            if folder == root:
                raise
            logger.warning("left out %s: it cannot be read (%s)", folder, error.strerror)
            continue
        absolute = folder.absolute()
        if any(entry.name == MARK for entry in entries):
            ours.update(absolute / name for name in marked_files(folder))
        for entry in entries:
            if entry.name.startswith(".") or entry.name in SYSTEM_FOLDERS:
                continue
            try:
                is_folder, is_file = entry.is_dir(), entry.is_file()
            except OSError as error:  # a link to itself, say
                logger.warning("left out %s: it cannot be read (%s)", folder / entry.name, error.strerror)
                continue
            if is_folder:
                if depth is None or level < depth:
                    (links if entry.is_symlink() else folders).append((folder / entry.name, level + 1))
            elif ours and absolute / entry.name in ours:
                left_out += 1
            elif is_file:
                files.append(folder / entry.name)
            elif entry.is_symlink():
                logger.warning("left out %s: the link leads nowhere", folder / entry.name)
    return sorted(files, key=lambda file: file.parts), left_out


def matches(path: Path, pattern: Sequence[str]) -> bool:
    """Tell whether a relative path fits a pattern, part by part; `**` stands for any folders, or none."""
    return _matches(path.parts, pattern)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[skipped:], pattern[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
