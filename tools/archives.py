"""Archives, taken apart safely by every Python 3.11: `extractall(filter="data")` came with 3.11.4."""

import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath


def extract(archive: tarfile.TarFile, folder: Path, members: Iterable[tarfile.TarInfo] | None = None) -> None:
    """Extract files and folders, by default all.

    Raises:
        tarfile.TarError: a member is something else, or would lie outside of `folder`; nothing is extracted then.
    """
    wanted = list(archive if members is None else members)
    for member in wanted:
        path = PurePosixPath(member.name)
        if not (member.isreg() or member.isdir()) or path.is_absolute() or ".." in path.parts:
            raise tarfile.TarError(f"{member.name} is no file or folder within the archive")
    archive.extraction_filter = lambda member, path: member  # or newer Pythons warn
    archive.extractall(folder, wanted)
