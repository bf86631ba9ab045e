"""Carry a sweep to machines that share no folder with the one that started it, and what they make home.

The machine that started the sweep keeps a `Depot`: the project goes out as Git's bundle with what differs from the last
commit, and DVC's cache file by file, in both directions. While a trial runs, what its finished stages have put into the
cache goes home, so that a machine that dies takes only the running stage with it.
"""

import contextlib
import fcntl
import os
import re
import subprocess
import threading
import uuid
from collections.abc import Callable, Collection, Generator, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from leanface.errors import LeanFaceError
from leanface.files import atomic_write, read_text
from leanface.sweep.experiments import cache_folder

SECONDS = 1.0
"""Between two looks at what a trial has put into the cache."""

PARCEL_BYTES = 64 * 2**20
"""Of files that are sent together; a larger file goes alone."""

RECORDS = (Path(".cache/mlflow-outbox"), Path(".cache/mlflow-files"))
"""What waits for MLflow, see `leanface.tracking.outbox`."""

TOKEN = Path(".cache/sweep-token")

_RESULT = re.compile(r"files/md5/[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?|leanface-.*\.json")
_RUN = re.compile(r"runs/[0-9a-f]{2}/[0-9a-f]{64}/[0-9a-f]{64}")

Call = Callable[..., Any]
"""Calls a method of the depot, named first."""


class Project(NamedTuple):
    """A project as it travels.

    Attributes:
        token: another one for each sweep that is started.
        bundle: all of Git's references.
        patch: what Git knows of, and differs from the commit `head`.
        files: what it does not know of and does not ignore, and the sweep's records.
    """

    token: str
    bundle: bytes
    head: str
    patch: bytes
    files: dict[str, bytes]


class Depot:
    """Lives on the machine that started the sweep, in a process of its own."""

    def __init__(self, project: str, sweep: str) -> None:
        """Enter the project; `sweep` is the folder of its records."""
        os.chdir(project)
        self._cache, self._token = cache_folder(), uuid.uuid4().hex
        self._sweep = Path(sweep)

    def project(self) -> Project:
        """Pack the project as it is now."""
        untracked = _git("ls-files", "--others", "--exclude-standard", "-z").decode().split("\0")
        paths = [Path(name) for name in untracked if name and Path(name).is_file()]
        paths += [*self._sweep.glob("*.json"), *self._sweep.glob("*/*.json")]
        return Project(
            self._token,
            _git("bundle", "create", "--quiet", "-", "--all", "HEAD"),
            _git("rev-parse", "HEAD").decode().strip(),
            _git("diff", "--binary", "HEAD"),
            {str(path): path.read_bytes() for path in paths},
        )

    def cached(self) -> list[str]:
        """List what the cache has."""
        return _cached(self._cache)

    def give(self, names: Iterable[str]) -> dict[str, bytes]:
        """Read files of the cache."""
        return {name: (self._cache / name).read_bytes() for name in names}

    def keep(self, files: dict[str, bytes]) -> None:
        """Put files into the cache, in this order, each whole or not at all."""
        _write(self._cache, files)

    def bring(self, files: dict[str, bytes], bundle: bytes) -> None:
        """Take a trial's records, and the experiments that it made."""
        if bundle:
            _fetch(Path.cwd(), bundle, "+refs/exps/*:refs/exps/*")
        _write(Path.cwd(), files)


@contextlib.contextmanager
def away(call: Call, folder: Path, sweep: Path) -> Generator[None]:
    """Be in a copy of the project, and bring home what the block makes.

    Args:
        call: the depot.
        folder: this machine's copy; several trials may be in it at the same time.
        sweep: the folder of the sweep's records, in the project.

    Raises:
        LeanFaceError: Git or DVC refuses, with what it says.
    """
    project: Project = call("project")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _enter(folder, project)
        cache = cache_folder()
        known = set(_cached(cache))
        for parcel in _parcels([name for name in call("cached") if name not in known], lambda _: PARCEL_BYTES // 100):
            _write(cache, call("give", parcel))
    known, before = set(_cached(cache)), _experiments()
    ended = threading.Event()

    def send() -> None:
        names = [name for name in _cached(cache) if name not in known]
        for parcel in _parcels(names, lambda name: (cache / name).stat().st_size):
            call("keep", {name: (cache / name).read_bytes() for name in parcel})
            known.update(parcel)

    def courier() -> None:
        while not ended.wait(SECONDS):
            send()

    thread = threading.Thread(target=courier, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        send()
        new = sorted(_experiments() - before)
        bundle = _git("bundle", "create", "--quiet", "-", *new, f"^{project.head}") if new else b""
        paths = [path for place in (sweep, *RECORDS) for path in place.rglob("*") if path.is_file()]
        files = {str(path): path.read_bytes() for path in paths}
        call("bring", {name: content for name, content in files.items() if project.files.get(name) != content}, bundle)


def _enter(folder: Path, project: Project) -> None:
    """Make the copy, unless another trial has."""
    os.chdir(folder)
    if TOKEN.is_file() and read_text(TOKEN) == project.token:
        return
    if not Path(".git").exists():
        _git("init", "--quiet")
    _fetch(folder, project.bundle, "+refs/*:refs/*")
    _git("checkout", "--quiet", "--force", "--detach", project.head)
    if project.patch:
        _git("apply", "--index", "-", given=project.patch)
    _write(folder, project.files)
    atomic_write(TOKEN, project.token)


def _cached(cache: Path) -> list[str]:
    """List DVC's results, and after them the records of the runs that made them, which must not come without."""
    runs = [path.relative_to(cache).as_posix() for path in cache.glob("runs/*/*/*")]
    results = [path.relative_to(cache).as_posix() for path in (*cache.glob("files/md5/*/*"), *cache.glob("*.json"))]
    return [name for name in results if _RESULT.fullmatch(name)] + [name for name in runs if _RUN.fullmatch(name)]


def _parcels(names: Collection[str], size: Callable[[str], int]) -> Generator[list[str]]:
    parcel: list[str] = []
    total = 0
    for name in names:
        if parcel and total + size(name) > PARCEL_BYTES:
            yield parcel
            parcel, total = [], 0
        parcel.append(name)
        total += size(name)
    if parcel:
        yield parcel


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        atomic_write(folder / name, content)


def _experiments() -> set[str]:
    return set(_git("for-each-ref", "--format=%(refname)", "refs/exps/").decode().split())


def _fetch(folder: Path, bundle: bytes, refs: str) -> None:
    file = folder / ".git" / f"leanface-{uuid.uuid4().hex}.bundle"
    try:
        file.write_bytes(bundle)
        _git("fetch", "--quiet", "--update-head-ok", "--no-write-fetch-head", str(file), refs)
    finally:
        file.unlink(missing_ok=True)


def _git(*arguments: str, given: bytes | None = None) -> bytes:
    done = subprocess.run(["git", *arguments], input=given, capture_output=True, check=False)
    if done.returncode:
        raise LeanFaceError(f"git {' '.join(arguments)} failed in {Path.cwd()}: {done.stderr.decode().strip()}")
    return done.stdout
