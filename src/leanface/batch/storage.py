"""Folders in any storage that fsspec knows: listed page by page, claimed by one run at a time, written file by file."""

import json
import os
import platform
import threading
import uuid
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from leanface.errors import ArtifactError, ConfigError, LeanFaceError, reason
from leanface.files import MARK, Json, atomic_write

KIND = "batch"
"""Of result, see `leanface.files`."""

FACES, FAILED, HEADS, RUNS = "faces", "failed", "heads", ".leanface-runs"
"""Folders of tables of faces, of photos that gave none in the last run, of meshes and pictures, of signs of life."""

BEAT_S = 10.0
STALE = timedelta(seconds=45)
"""Between two signs of life, and after which a run counts as dead."""

_ADVICE = {
    "FileNotFoundError": "Check its name.",
    "NoCredentialsError": "Give credentials as to the storage's own tools; for S3 these are AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, ~/.aws, or the machine's role.",
    "PermissionError": "Give credentials that are allowed to, on each machine that works.",
}


def is_url(text: str) -> bool:
    """Tell a URL from a path: what is there under that name, however odd, is a path."""
    return "://" in text and not os.path.lexists(text)


class Storage:
    """A folder in a storage. Names are relative to it, with "/"."""

    def __init__(self, url: str) -> None:
        """Name the folder, which need not be there; nothing is read yet.

        Args:
            url: as fsspec understands it, or a path.

        Raises:
            ConfigError: there is no such kind of storage, or its package is not installed.
        """
        from fsspec import core  # pyright: ignore[reportMissingTypeStubs]

        open_url: Any = core.url_to_fs  # pyright: ignore[reportUnknownVariableType]
        self.url = url.rstrip("/")
        try:
            self._files: Any
            self._root: str
            self._files, self._root = open_url(self.url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"{url} cannot be opened: {error}. S3 needs pip install 'leanface[batch]'.") from None
        names: Any = self._files.protocol
        self._kinds: set[str] = {names} if isinstance(names, str) else set(names)

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine, or what this machine has mounted."""
        return "file" in self._kinds

    def path(self, name: str) -> str:
        """Return the whole path of a name, without the kind of storage."""
        return f"{self._root}/{name}"

    def start_within(self, other: "Storage") -> str | None:
        """Return how names begin in `other` of what is here; None if this does not lie within it."""
        inside = self._kinds == other._kinds and self._root.startswith(f"{other._root}/")
        return self._root[len(other._root) + 1 :] + "/" if inside else None

    def pages(self) -> Iterator[list[tuple[str, Json]]]:
        """List all files below with what is known of them: on S3 1,000 at a time, elsewhere a folder at a time.

        Raises:
            ArtifactError: it cannot be read.
        """
        start = len(self._root) + 1
        with self.told("read"):
            if "s3" in self._kinds:
                bucket, prefix, _ = self._files.split_path(self._root)
                start = len(prefix) + 1 if prefix else 0
                request = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else "", **self._files.req_kw}
                while True:
                    page = self._files.call_s3("list_objects_v2", **request)
                    yield [(item["Key"][start:], item) for item in page.get("Contents", [])]
                    if not page.get("IsTruncated"):
                        return
                    request["ContinuationToken"] = page["NextContinuationToken"]
            for _, _, files in self._files.walk(self._root, detail=True, on_error="raise"):
                yield [(files[name]["name"][start:], files[name]) for name in sorted(files)]

    def names(self, folder: str) -> list[str]:
        """List the files of a folder, which need not be there."""
        with self.told("read"):
            try:
                found = self._files.ls(self.path(folder), detail=True)
            except FileNotFoundError:
                return []
            return sorted(f"{folder}/{item['name'].rpartition('/')[2]}" for item in found if item["type"] == "file")

    def read(self, name: str) -> bytes | None:
        """Read a file; None if it is not there."""
        with self.told("read"):
            try:
                return self._files.cat_file(self.path(name))
            except FileNotFoundError:
                return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all.

        Raises:
            ArtifactError: it cannot be written.
        """
        with self.told("write to"):
            if self.is_local:
                atomic_write(Path(self.path(name)), content)
            else:
                self._files.pipe_file(self.path(name), content)

    def remove(self, folder: str) -> None:
        """Remove the files of a folder, but for those in folders within it."""
        names = self.names(folder)
        with self.told("write to"):
            if names:
                self._files.rm([self.path(name) for name in names])

    @contextmanager
    def told(self, doing: str) -> Generator[None]:
        """Tell in a line what went wrong with this storage."""
        try:
            yield
        except LeanFaceError:
            raise
        except Exception as error:  # each storage has its own
            advice = _ADVICE.get(type(error).__name__, "Check that it answers, and try again.")
            raise ArtifactError(f"cannot {doing} {self.url} ({reason(error)}). {advice}") from error

    def claim(self, made_with: Json, *, redo: bool) -> None:
        """Mark the folder, in which `alone` has just written, as results that are made in this way.

        Args:
            made_with: all that decides what the results are.
            redo: whether results that were made in another way, or in the same, make room.

        Raises:
            ArtifactError: it holds something else, or results that were made in another way.
        """
        content = self.read(MARK)
        mark: Json = {}
        with suppress(ValueError):
            mark = json.loads(content or b"")
        if mark.get("kind") == KIND:
            others = [name for name, value in made_with.items() if mark["made_with"].get(name) != value]
            if others and not redo:
                raise ArtifactError(
                    f"what {self.url} holds was made otherwise ({', '.join(others)}): choose another place, or --redo "
                    "to do all of it again."
                )
        elif content is not None or any(not name.startswith(".") for page in self.pages() for name, _ in page):
            raise ArtifactError(f"{self.url} holds other files. They are left as they are; choose an empty place.")
        if redo:
            self.remove(FACES)
        self.remove(FAILED)  # all of these are tried again
        about = "LeanFace made all that is here, and may replace it."
        mark = {"about": about, "kind": KIND, "files": {}, "made_with": made_with}
        self.write(MARK, json.dumps(mark, indent=1).encode())

    @contextmanager
    def alone(self) -> Generator[None]:
        """Be the only run that writes here.

        Each run writes a small file every ten seconds. Its time is the storage's own, so that clocks need not agree.

        Raises:
            ArtifactError: another run has shown a sign of life.
        """
        ended = threading.Event()
        own = f"{RUNS}/{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.write(own, b"")

        def beat() -> None:
            while not ended.wait(BEAT_S):
                with suppress(ArtifactError):  # the next one may arrive
                    self.write(own, b"")

        thread = threading.Thread(target=beat, daemon=True)
        try:
            self._require_alone(own)
            thread.start()
            yield
        finally:
            ended.set()
            if thread.is_alive():
                thread.join()
            with suppress(Exception):  # the storage may be away, which is no news then
                self._files.rm_file(self.path(own))
                if self.is_local:
                    Path(self.path(RUNS)).rmdir()

    def _require_alone(self, own: str) -> None:
        with self.told("read"):
            now = self._files.modified(self.path(own))
            for other in self.names(RUNS):
                with suppress(FileNotFoundError):  # it has just ended
                    if other != own and now - self._files.modified(self.path(other)) < STALE:
                        raise ArtifactError(
                            f"another run writes to {self.url} ({other.partition('/')[2]}: its machine and process). "
                            f"Wait for its end; if it was killed, try again in {STALE.seconds} seconds."
                        )
                    if other != own:
                        self._files.rm_file(self.path(other))
