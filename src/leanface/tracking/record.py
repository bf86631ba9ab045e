"""Describe one run, and the files that belong to it, so that MLflow can be told later."""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from leanface.config import FACE
from leanface.files import staged_file

VERSION = 3
"""Of a record's JSON. Version 2 had no `beside`; version 1 no version, and named files without their digests."""

BLOCK = 2**20


class DamagedRecordError(Exception):
    """A record in the outbox is not what LeanFace writes."""


class NewerRecordError(Exception):
    """A newer LeanFace wrote this record."""


@dataclass
class File:
    """One file of a run, known by its contents.

    Attributes:
        path: where it was, relative to the project's folder if it was inside.
        name: its path among the run's files in MLflow.
        sha256: of its contents when the run was recorded.
    """

    path: str
    name: str
    sha256: str


@dataclass
class Variant:
    """One network of a pipeline, which becomes a model in MLflow.

    Attributes:
        network: its ONNX file, of which only that of the record's `model` is sent.
    """

    name: str
    metrics: dict[str, float]
    params: dict[str, str]
    network: File | None = None


@dataclass
class Dataset:
    """What networks were trained or tested on.

    Attributes:
        digest: of its contents.
        source: where it is, relative to the project's folder.
        context: training, validation or evaluation.
        profile: what else to know of it.
    """

    name: str
    digest: str
    source: str
    context: str
    profile: dict[str, int]


@dataclass
class Record:
    """One run, as it lies in the outbox. Times are Unix milliseconds.

    Attributes:
        id: a tag of the run in MLflow, so that a delivery that was cut off goes on with the same run.
        made_at: orders the runs that may become the champion; never less than that of an earlier one.
        metrics: (name, value, time, step), those that were not delivered yet.
        files: those to attach.
        variants: its networks, from the original to the smallest.
        datasets: what they were trained and tested on.
        model: the network that the run is about.
        beside: what the deployed model needs beside its network, by the names of `leanface.tracking.packages`.
        champion: whether that network is registered, as the one to deploy.
        run_id: MLflow's, once it knows of the run.
        note: shown as the run's description once it has ended; {run_id} in it becomes MLflow's.
        missing: files that were gone before the run was recorded.
    """

    name: str
    params: dict[str, str]
    tags: dict[str, str]
    started: int
    ended: int | None = None
    status: str = "RUNNING"
    metrics: list[tuple[str, float, int, int]] = field(default_factory=list[tuple[str, float, int, int]])
    files: list[File] = field(default_factory=list[File])
    variants: list[Variant] = field(default_factory=list[Variant])
    datasets: list[Dataset] = field(default_factory=list[Dataset])
    model: File | None = None
    beside: dict[str, File] = field(default_factory=dict[str, File])
    champion: bool = False
    run_id: str | None = None
    note: str | None = None
    missing: list[str] = field(default_factory=list[str])
    made_at: int = 0
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def task(self) -> str:
        """What its networks are for."""
        return self.params.get("task.name", FACE)

    version: int = VERSION

    @property
    def contents(self) -> list[File]:
        """Every file that the record means."""
        return [*self.files, *([self.model] if self.model else []), *self.beside.values()]


_RECORD = TypeAdapter(Record)


def write_record(record: Record) -> str:
    """Return a record as JSON."""
    return json.dumps(asdict(record))


def read_record(path: Path) -> Record:
    """Read a record.

    Raises:
        DamagedRecordError: it is cut short, or something else.
        NewerRecordError: this LeanFace does not know its version.
        OSError: the file could not be read, which may pass.
    """
    text = path.read_bytes()
    try:
        tree: Any = json.loads(text)
    except ValueError as error:  # of which UnicodeDecodeError is one
        raise DamagedRecordError(f"not JSON: {error}") from None
    if not isinstance(tree, dict):
        raise DamagedRecordError("no JSON object")
    version: Any = tree.get("version", 1)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(version, int) and version > VERSION:
        raise NewerRecordError(f"its version is {version}; this LeanFace knows {VERSION}")
    if version == 1:
        _upgrade(tree, path)  # pyright: ignore[reportUnknownArgumentType]
    try:
        return _RECORD.validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        raise DamagedRecordError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _upgrade(tree: dict[str, Any], path: Path) -> None:
    """Turn a record of version 1 into one of today: without digests its files may be another run's by now."""
    named: list[Any] = [*(tree.pop("artifacts", None) or []), *([tree["model"]] if tree.get("model") else [])]
    tree |= {"id": path.stem, "model": None, "champion": False, "missing": [Path(str(name)).name for name in named]}


def find_files(paths: Sequence[Path], root: Path) -> tuple[list[File], list[str]]:
    """Return the files at these paths and in these folders, and the names of what is not there or cannot be read."""
    found: list[File] = []
    missing: list[str] = []
    for path in paths:
        members = [(member, f"{path.name}/{member.relative_to(path).as_posix()}") for member in _members(path)]
        if path.is_file():
            members = [(path, path.name)]
        elif not members:
            missing.append(path.name)
        for member, name in members:
            whole = member.absolute()
            place = whole.relative_to(root) if whole.is_relative_to(root) else whole
            try:
                found.append(File(place.as_posix(), name, digest(member)))
            except OSError:
                missing.append(name)
    return found, missing


def _members(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's contents, in hexadecimal."""
    with path.open("rb") as contents:
        return hashlib.file_digest(contents, "sha256").hexdigest()


class _ChangedError(Exception):
    """A file is gone, or holds something else by now."""


def copy_exactly(source: Path, target: Path, sha256: str) -> bool:
    """Copy a file if it has these contents, and return whether it had.

    Raises:
        ArtifactError: the copy could not be written.
        OSError: the file could not be read, which may pass.
    """
    total = hashlib.sha256()
    try:
        with source.open("rb") as contents, staged_file(target) as staging, staging.open("xb") as copy:
            while block := contents.read(BLOCK):
                total.update(block)
                copy.write(block)
            if total.hexdigest() != sha256:
                raise _ChangedError
    except (_ChangedError, FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return False
    return True
