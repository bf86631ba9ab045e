"""Writes files and folders whole or not at all, and never over anything that LeanFace did not make.

What is being written lies in a hidden folder `.leanface-unfinished-????????` beside its final place, which its writer
locks. The next process that writes there clears what a killed one left: such a folder that nobody locks any more.

A folder of results bears a mark, `.leanface.json`, which says what kind of result it is and lists the files in it. The
mark decides what LeanFace may replace or remove: a folder without one is the user's, and so is a file that it does not
list. docs/files.md is the promise that this module keeps.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, cast

from leanface.errors import ArtifactError

Json = dict[str, Any]

MARK = ".leanface.json"

_PREFIX = ".leanface-unfinished-"
_WORKPLACE = re.compile(re.escape(_PREFIX) + r"[a-z0-9_]{8}")  # as `tempfile.mkdtemp` makes names
_NEW, _OLD = "new", "old"

_DROPPINGS = {".DS_Store", ".directory", "Thumbs.db", "desktop.ini", "lost+found"}
"""What operating systems leave in folders: a folder that holds nothing else is empty."""

_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)
"""Why a folder cannot be moved to a place where another one is, or was a moment ago."""

_ADVICE = {
    errno.ENAMETOOLONG: "The name is too long for this disk; choose a shorter one.",
    errno.ENOSPC: "The disk is full; make room.",
    errno.EFBIG: "The file is larger than this disk or `ulimit -f` allows.",
    errno.EDQUOT: "Your share of the disk is full; make room.",
    errno.ENOTDIR: "A file is where a folder must be; choose another place.",
    errno.EEXIST: "A file is where a folder must be; choose another place.",
}

_cleared: set[str] = set()
"""Folders that this process has looked through for leftovers: once each, for they may hold 60,000 results."""


def atomic_write(path: Path, content: bytes | str) -> None:
    """Write a file whole or not at all, text as UTF-8; see `staged_file`."""
    with staged_file(path) as staging:
        staging.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def staged_file(path: Path) -> Generator[Path]:
    """Yield a path of the same name, whose file takes `path`'s place if the block ends without an error.

    A file or link at `path` is replaced, never written into: whatever else refers to its content keeps it. Missing
    parent folders are made. Any threads and processes may do this at the same time; the last one wins.

    Raises:
        ArtifactError: the file cannot be written; what was there before is unchanged.
    """
    with _workplace(path.parent, path) as workplace:
        folder = workplace / _NEW
        folder.mkdir()
        yield folder / path.name
        # Some libraries write for the owner alone; a folder that was just made shows what the umask allows.
        (folder / path.name).chmod(folder.stat().st_mode & 0o666)
        os.replace(folder / path.name, path)


@contextmanager
def staged(folder: Path, kind: str = "result", *, owned: bool = False) -> Generator[Path]:
    """Yield a new, empty folder whose content is found at `folder` if the block ends without an error.

    A new `folder` appears whole and bears a mark. Into one that is empty or bears a mark of this kind, the files are
    moved one by one, and files that its mark lists but which were not written again are removed. All else in it is left
    alone. Until everything is in place, the mark says that it is unfinished. Any threads and processes may do this at
    the same time.

    Args:
        folder: missing, empty, or marked.
        kind: of result, in the words that a refusal uses.
        owned: whatever is at `folder` is LeanFace's; the new folder takes its place as a whole, without a mark.

    Raises:
        ArtifactError: something that LeanFace did not make is in the way, or the folder cannot be written. What was
            there before is unchanged.
    """
    inside = not owned and folder.is_dir()  # it may be a mount, the current folder, or in a folder that is read-only
    if owned:
        _cleared.discard(os.path.realpath(folder.parent))  # few and large: what is left of one is cleared by the next
    else:
        require_free(folder, kind)
    with _workplace(folder if inside else folder.parent, folder) as workplace:
        new = workplace / _NEW
        new.mkdir()
        yield new
        if owned:
            _swap(new, folder, workplace)
            return
        files = {path.relative_to(new).as_posix(): path.stat().st_size for path in new.rglob("*") if path.is_file()}
        _write_mark(new / MARK, kind, files)
        if not os.path.lexists(folder):
            try:
                new.rename(folder)
                return
            except OSError:
                if not os.path.lexists(folder):
                    raise
        require_free(folder, kind)
        _fill(folder, new, kind, files)


def require_free(folder: Path, kind: str, within: Path | None = None) -> None:
    """Refuse a place that holds what LeanFace did not make, or what is a result of another kind.

    Args:
        within: a folder above; links between the two, which may lead out of it, and files are refused, too.

    Raises:
        ArtifactError: `folder` is neither missing, nor empty, nor marked as of this kind.
    """
    if within is not None:
        _require_folders(within, folder.relative_to(within))
    if not os.path.lexists(folder):
        return
    found = ""
    if folder.is_symlink():
        found = "a link"
    elif not folder.is_dir():
        found = "a file"
    elif (mark := _read_mark(folder)) is not None:
        if mark["kind"] != kind:
            raise ArtifactError(f"{folder} holds a {mark['kind']}, where a {kind} should go; choose another place.")
    else:
        names = sorted(path.name for path in folder.iterdir())
        others = [name for name in names if name not in _DROPPINGS and not _WORKPLACE.fullmatch(name)]
        found = f"a folder with {others[0]!r} in it" if others else ""
    if found:
        raise _in_the_way(folder, found)


def claim(folder: Path, kind: str) -> None:
    """Make a folder for results within it, or mark an empty one as such.

    Raises:
        ArtifactError: as `staged`.
    """
    require_free(folder, kind)
    with _workplace(folder, folder) as workplace, _locked(folder):
        require_free(folder, kind)
        _put_mark(workplace, folder, kind, marked_files(folder))


@contextmanager
def staged_beside(folder: Path, kind: str, name: str) -> Generator[Path]:
    """Yield a path whose file is found as `name` in a folder that may hold the user's files, too; the mark lists it.

    Args:
        kind: of result that the folder holds besides.
        name: relative to the folder.

    Raises:
        ArtifactError: there is such a file, and the mark does not list it, or the folder is another kind of result.
    """
    _require_beside(folder, kind, name)
    with _workplace(folder, folder / name) as workplace:
        staging = workplace / _NEW / Path(name).name
        staging.parent.mkdir()
        yield staging
        with _locked(folder):
            _require_beside(folder, kind, name)
            files = marked_files(folder) | {name: staging.stat().st_size}
            _put_mark(workplace, folder, kind, files, finished=False)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging, folder / name)


def forget_others(folder: Path, kind: str, names: Collection[str]) -> None:
    """Remove files that a folder's mark lists and that are not among `names`: those of an earlier run."""
    if kind_of_result(folder) != kind:
        return
    with _workplace(folder, folder) as workplace, _locked(folder):
        known = marked_files(folder)
        for name in known.keys() - names:
            _remove(folder, name, known[name])
        _put_mark(workplace, folder, kind, {name: size for name, size in known.items() if name in names})


def remove_result(folder: Path, kind: str) -> None:
    """Remove the files that the mark of a result lists, and the folder if nothing else is in it."""
    forget_others(folder, kind, ())
    with suppress(OSError):
        if [path.name for path in folder.iterdir()] == [MARK]:
            (folder / MARK).unlink()
            folder.rmdir()


@contextmanager
def scratch() -> Generator[Path]:
    """Yield an empty folder among the machine's temporary ones, which is removed afterwards.

    If this process is killed, the next one that asks for such a folder removes this one first.

    Raises:
        ArtifactError: nothing can be written there.
    """
    temporary = Path(tempfile.gettempdir())
    with _workplace(temporary, temporary) as workplace:
        yield workplace


def require_writable(folder: Path) -> None:
    """Make a folder if it is missing, and check that files can be written there.

    Raises:
        ArtifactError: it is a file, or nothing can be written there.
    """
    with _workplace(folder, folder):
        pass


def kind_of_result(folder: Path) -> str | None:
    """Return the kind of result that a folder's mark states; None without a mark."""
    mark = _read_mark(folder)
    return None if mark is None else mark["kind"]


def marked_files(folder: Path) -> dict[str, int]:
    """Return what a folder's mark lists: sizes in bytes by relative path. Empty without a mark."""
    return _files_of(_read_mark(folder))


def is_intact(folder: Path) -> bool:
    """Tell whether a marked folder was finished, and every file of it is there in its full size."""
    mark = _read_mark(folder)
    if mark is None or mark.get("finished") is not True:
        return False
    try:
        return all((folder / name).stat().st_size == size for name, size in _files_of(mark).items())
    except OSError:
        return False


def digest(path: Path) -> str:
    """Return the sha256 of a file, or of a folder's files and their names.

    Raises:
        OSError: something cannot be read.
    """
    hasher = hashlib.sha256()
    for file in sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]:
        if file != path:
            hasher.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as content:
            while block := content.read(2**20):
                hasher.update(block)
    return hasher.hexdigest()


def copy_file(source: Path, target: Path) -> None:
    """Copy a file whole or not at all.

    Raises:
        ArtifactError: it is missing, or cannot be written.
    """
    with staged_file(target) as staging:
        try:
            shutil.copyfile(source, staging)
        except FileNotFoundError:
            raise ArtifactError(f"{source} is missing: run `dvc repro`, which makes it.") from None


def read_text(path: Path) -> str:
    """Read a UTF-8 file that the pipeline makes.

    Raises:
        ArtifactError: it is missing.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ArtifactError(f"{path} is missing: run `dvc repro`, which makes it.") from None


def read_json(path: Path) -> Json:
    """Read a JSON object that the pipeline makes.

    Raises:
        ArtifactError: it is missing, or not a JSON object.
    """
    try:
        contents: Any = json.loads(read_text(path))
    except ValueError as error:
        raise ArtifactError(f"{path} is not JSON ({error}); rebuild it with `dvc repro`.") from None
    if not isinstance(contents, dict):
        raise ArtifactError(f"{path} holds no JSON object; rebuild it with `dvc repro`.")
    return cast(Json, contents)


def write_json(path: Path, contents: Mapping[str, Any]) -> None:
    """Write indented JSON, whole or not at all."""
    atomic_write(path, json.dumps(contents, indent=1) + "\n")


@contextmanager
def _workplace(parent: Path, goal: Path) -> Generator[Path]:
    """Yield a locked, hidden folder in `parent`, which is removed afterwards.

    Raises:
        ArtifactError: `parent`, or something that the block writes there, cannot be written.
    """
    workplace = None
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(parent)
        workplace, lock = _new_workplace(parent)
        try:
            yield workplace
        finally:
            _put_back(workplace)
            shutil.rmtree(workplace, ignore_errors=True)
            if lock is not None:
                os.close(lock)
    except OSError as error:
        if workplace is not None and error.filename is not None and not _is_below(error.filename, parent):
            raise  # of something that the block read elsewhere
        advice = _ADVICE.get(error.errno or 0, "Choose a folder that you may write to.")
        raise ArtifactError(
            f"cannot write {goal} ({error.strerror or error}). {advice} What was there before is unchanged."
        ) from error


def _is_below(name: object, folder: Path) -> bool:
    return isinstance(name, str | os.PathLike) and Path(os.fspath(cast(str, name))).is_relative_to(folder)


def _new_workplace(parent: Path) -> tuple[Path, int | None]:
    """Make a workplace and lock it; None for the lock where there are none."""
    while True:
        workplace = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        try:
            lock = _lock(workplace)
        except (BlockingIOError, FileNotFoundError):  # another process took it for a leftover
            continue
        if lock is None or workplace.exists():
            return workplace, lock
        os.close(lock)


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Wait until no one else changes a folder's files and mark."""
    lock = _lock(folder, wait=True)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _lock(folder: Path, *, wait: bool = False) -> int | None:
    """Lock a folder until the descriptor that is returned is closed; None where folders cannot be locked.

    Raises:
        BlockingIOError: another one holds it.
    """
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:  # some network file systems
        os.close(descriptor)
        return None
    return descriptor


def _clear_leftovers(parent: Path) -> None:
    """Remove what killed processes left in a folder."""
    if (place := os.path.realpath(parent)) in _cleared:
        return
    _cleared.add(place)
    with os.scandir(parent) as entries:
        found = [
            Path(entry.path)
            for entry in entries
            if _WORKPLACE.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        ]
    for workplace in found:
        with suppress(OSError):  # in use, another user's, or just removed by another process
            lock = _lock(workplace)
            if lock is not None:
                _put_back(workplace)
                shutil.rmtree(workplace, ignore_errors=True)
                os.close(lock)


def _swap(new: Path, folder: Path, workplace: Path) -> None:
    """Put `new` where `folder` is, which is moved to the workplace."""
    attempt = 0
    while True:
        try:
            new.rename(folder)
            return
        except OSError as error:
            if error.errno not in _TAKEN and not os.path.lexists(folder):
                raise
        attempt += 1
        aside = workplace / f"{_OLD}-{attempt}"
        aside.mkdir()
        with suppress(FileNotFoundError):  # another process has moved it
            os.replace(folder, aside / folder.name)


def _put_back(workplace: Path) -> None:
    """Undo a swap that stopped halfway: what was moved aside goes back if nothing took its place."""
    for aside in workplace.glob(f"{_OLD}-*/*"):
        place = workplace.parent / aside.name
        if not os.path.lexists(place):
            with suppress(OSError):
                os.replace(aside, place)


def _require_beside(folder: Path, kind: str, name: str) -> None:
    if kind_of_result(folder) not in (kind, None):
        require_free(folder, kind)
    _require_folders(folder, Path(name))
    _require_listed(folder, [name], marked_files(folder))


def _require_folders(folder: Path, path: Path) -> None:
    """Refuse a path below a folder that leads over a link or a file."""
    for parent in path.parents:
        if parent != Path() and os.path.lexists(folder / parent):
            if (folder / parent).is_symlink():
                raise _in_the_way(folder / parent, "a link")
            if not (folder / parent).is_dir():
                raise _in_the_way(folder / parent, "a file")


def _in_the_way(path: Path, found: str) -> ArtifactError:
    return ArtifactError(
        f"{path} is {found} that LeanFace did not make. It is left as it is; move it, or choose another place."
    )


def _require_listed(folder: Path, names: Iterable[str], known: Mapping[str, int]) -> None:
    for name in names:
        if name not in known and os.path.lexists(folder / name):
            raise _in_the_way(folder / name, "a file")


def _fill(folder: Path, new: Path, kind: str, files: Mapping[str, int]) -> None:
    """Move files into a folder that is empty or ours; remove those that its mark lists and that are not among them."""
    with _locked(folder):
        known = marked_files(folder)
        _require_listed(folder, files, known)
        _put_mark(new.parent, folder, kind, {**known, **files}, finished=False)
        for name in files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(new / name, folder / name)
        for name in known.keys() - files.keys():
            _remove(folder, name, known[name])
        os.replace(new / MARK, folder / MARK)


def _remove(folder: Path, name: str, size: int) -> None:
    """Remove a file that a mark lists, unless it has changed since, and then the folders that it leaves empty."""
    path = folder / name
    with suppress(OSError):
        status = path.lstat()
        through_link = path.parent.resolve() != folder.resolve() / PurePosixPath(name).parent
        if not stat.S_ISREG(status.st_mode) or status.st_size != size or through_link:
            return
        path.unlink()
        for parent in PurePosixPath(name).parents[:-1]:
            (folder / parent).rmdir()


def _put_mark(workplace: Path, folder: Path, kind: str, files: Mapping[str, int], *, finished: bool = True) -> None:
    _write_mark(workplace / MARK, kind, files, finished=finished)
    os.replace(workplace / MARK, folder / MARK)


def _write_mark(path: Path, kind: str, files: Mapping[str, int], *, finished: bool = True) -> None:
    about = "LeanFace made the files that are listed here, and may replace them. It leaves all others alone."
    contents = {"about": about, "kind": kind, "finished": finished, "files": dict(sorted(files.items()))}
    path.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")


def _read_mark(folder: Path) -> Json | None:
    """Read a folder's mark; None if there is none, or none that could be LeanFace's."""
    try:
        contents: Any = json.loads((folder / MARK).read_bytes())
        return contents if isinstance(contents["files"], dict) and isinstance(contents["kind"], str) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _files_of(mark: Json | None) -> dict[str, int]:
    """List the files that a mark names within its own folder: it may have come from anywhere."""
    return dict(_checked({} if mark is None else mark["files"]))


def _checked(files: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for name, size in files.items():
        path = PurePosixPath(name)
        if isinstance(size, int) and path.parts and not path.is_absolute() and ".." not in path.parts:
            yield name, size
