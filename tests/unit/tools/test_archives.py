"""Archives that would write elsewhere are refused."""

import io
import tarfile
from pathlib import Path

import pytest

from tools.archives import extract


def packed(*members: tarfile.TarInfo) -> tarfile.TarFile:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for member in members:
            member.size = 5 if member.isreg() else 0
            archive.addfile(member, io.BytesIO(b"hello") if member.isreg() else None)
    file.seek(0)
    return tarfile.open(fileobj=file)


def test_files_and_folders_are_extracted(tmp_path: Path) -> None:
    folder = tarfile.TarInfo("models")
    folder.type, folder.mode = tarfile.DIRTYPE, 0o755
    with packed(folder, tarfile.TarInfo("models/a.txt"), tarfile.TarInfo("b.txt")) as archive:
        extract(archive, tmp_path, [member for member in archive if member.name != "b.txt"])
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["models", "models/a.txt"]
    assert (tmp_path / "models/a.txt").read_bytes() == b"hello"


@pytest.mark.parametrize("name", ["../a.txt", "/tmp/a.txt", "models/../../a.txt", "link"])
def test_what_leads_elsewhere_is_refused_and_nothing_is_extracted(tmp_path: Path, name: str) -> None:
    hostile = tarfile.TarInfo(name)
    if name == "link":
        hostile.type, hostile.linkname = tarfile.SYMTYPE, "/etc"
    with packed(tarfile.TarInfo("good.txt"), hostile) as archive, pytest.raises(tarfile.TarError, match="within"):
        extract(archive, tmp_path / "new")
    assert not (tmp_path / "new").exists()
