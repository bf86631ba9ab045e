"""Keep what MLflow has not got yet: a JSON file per run, and copies of the files that these runs mean.

`.cache/mlflow-outbox` holds the runs, `.cache/mlflow-files` the copies by their SHA-256: by the time that MLflow can be
reached, the pipeline may have put another network in the same place. A record that can never be delivered moves to
`.cache/mlflow-set-aside`.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

from leanface.errors import ArtifactError
from leanface.files import atomic_write
from leanface.tracking.locks import locked
from leanface.tracking.place import cache, store_root
from leanface.tracking.record import (
    DamagedRecordError,
    File,
    NewerRecordError,
    Record,
    copy_exactly,
    read_record,
    write_record,
)

logger = logging.getLogger(__name__)

LEFTOVER_SECONDS = 3600.0
"""Where files cannot be locked: age of a claimed record whose claimer is taken for dead."""

FILES_PATIENCE_SECONDS = 30.0


class RefusedError(Exception):
    """MLflow answers, and says that it will never take this record."""


@dataclass
class Delivery:
    """What became of the records that waited.

    Attributes:
        delivered: how many runs MLflow got.
        held: why others still wait, a line each.
        aside: why others never can be delivered, a line each.
    """

    delivered: int = 0
    held: list[str] = field(default_factory=list[str])
    aside: list[str] = field(default_factory=list[str])


def outbox() -> Path:
    """Return the folder of the records."""
    return cache() / "mlflow-outbox"


def aside() -> Path:
    """Return the folder of the records that cannot be delivered."""
    return cache() / "mlflow-set-aside"


def _files() -> Path:
    return cache() / "mlflow-files"


def waiting() -> list[Path]:
    """Return the records in the order in which they were posted, without those that are being delivered."""
    return sorted(outbox().glob("*.json"))


def holds_any() -> bool:
    """Tell whether a record waits, or was left half-delivered."""
    return bool(waiting() or list(outbox().glob("*.sending")))


def post(record: Record) -> None:
    """Put a record into the outbox, with copies of its files as far as there is room for them.

    Raises:
        ArtifactError: the record could not be written; nothing of it is left.
        OSError: its lock could not be had.
    """
    with _files_locked():
        for file in record.contents:
            try:
                if not _copy_of(file).is_file():
                    copy_exactly(_origin_of(file), _copy_of(file), file.sha256)
            except (ArtifactError, OSError) as error:
                logger.warning("no copy of %s is kept for MLflow (%s)", file.path, error)
        atomic_write(outbox() / f"{time.time_ns()}-{record.id}.json", write_record(record))


def fetch(file: File, target: Path) -> bool:
    """Copy a file of a record, as it was when the run was recorded; return whether it still exists.

    Raises:
        ArtifactError: there is no room for it.
        OSError: it could not be read, which may pass.
    """
    return any(copy_exactly(source, target, file.sha256) for source in (_copy_of(file), _origin_of(file)))


def deliver(send: Callable[[Record], None], reachable: Callable[[], bool], patience_s: float) -> Delivery:
    """Hand every record to `send`, one process at a time; a record that it cannot take holds up no other.

    Args:
        send: raises RefusedError for a record that MLflow will never take.
        reachable: whether MLflow answers, asked after `send` failed.
        patience_s: how long to wait for another process that delivers.

    Raises:
        TimeoutError: it took longer.
        Exception: what `send` raised, if MLflow is out of reach: all that was not delivered still waits.
    """
    done = Delivery()
    tried = set[str]()
    with locked(cache() / "mlflow-outbox.lock", patience_s) as alone:
        while paths := [path for path in [*_leftovers(alone), *waiting()] if path.stem not in tried]:
            for path in paths:
                tried.add(path.stem)
                _deliver_one(path, send, reachable, done)
    return done


def _deliver_one(path: Path, send: Callable[[Record], None], reachable: Callable[[], bool], done: Delivery) -> None:
    with _claimed(path) as claimed:
        if claimed is None:
            return
        try:
            record = read_record(claimed)
        except DamagedRecordError as error:
            done.aside.append(_set_aside(claimed, claimed.stem, error))
            return
        except (NewerRecordError, OSError) as error:
            done.held.append(f"{path.stem}: {error}")
            return
        try:
            send(record)
        except RefusedError as error:
            done.aside.append(_set_aside(claimed, f"run {record.name!r}", error))
        except Exception as error:
            if not reachable():
                raise
            done.held.append(f"run {record.name!r}: {first_line(error)}")
        else:
            done.delivered += 1
            claimed.unlink()
            _release(record)


@contextlib.contextmanager
def _claimed(path: Path) -> Generator[Path | None]:
    """Rename a record, so that of several processes one delivers it, and back if it is still there afterwards."""
    claimed = path.with_suffix(".sending")
    try:
        os.replace(path, claimed)
    except FileNotFoundError:  # another process was faster
        yield None
        return
    try:
        yield claimed
    finally:
        if claimed.exists():
            os.replace(claimed, path.with_suffix(".json"))


def _leftovers(alone: bool) -> list[Path]:
    """Return what a process that was killed had claimed: with the lock in hand, nobody else delivers."""
    claimed = sorted(outbox().glob("*.sending"))
    if alone:
        return claimed
    limit = time.time() - LEFTOVER_SECONDS
    return [path for path in claimed if path.exists() and path.stat().st_mtime < limit]


def _set_aside(path: Path, what: str, reason: Exception) -> str:
    """Move a record out of the way, and say so; return what was said."""
    aside().mkdir(parents=True, exist_ok=True)
    target = aside() / f"{path.stem}.json"
    os.replace(path, target)
    message = f"{what} cannot be delivered ({first_line(reason)}); it was moved to {target}"
    logger.warning("%s", message)
    return message


def _release(record: Record) -> None:
    """Remove the copies that no other record means, whether or not that one can be read."""
    with _files_locked():
        copies = {file.sha256: _copy_of(file) for file in record.contents if _copy_of(file).is_file()}
        if not copies:
            return
        others = [path for folder in (outbox(), aside()) for path in folder.glob("*") if path.is_file()]
        texts = [path.read_text(errors="replace") for path in others]
        for sha256, path in copies.items():
            if not any(sha256 in text for text in texts):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # unless other copies are left
            _files().rmdir()


def _files_locked() -> contextlib.AbstractContextManager[bool]:
    """Keep others from releasing a copy while a record that means it is written."""
    return locked(cache() / "mlflow-files.lock", FILES_PATIENCE_SECONDS)


def _copy_of(file: File) -> Path:
    return _files() / file.sha256


def _origin_of(file: File) -> Path:
    return store_root() / file.path


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
