"""Photos of a storage in chunks, which are what is done, lost and recorded as a whole."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt64

from leanface.batch.storage import Storage
from leanface.files import Json
from leanface.photos.kinds import PHOTO_SUFFIXES, why_unreadable
from leanface.photos.walk import SYSTEM_FOLDERS

PHOTOS = 32
"""Of a chunk at most: seconds of work, which is what a worker that is killed takes with it."""

BYTES_MAX = 2**27
"""Of the photos of a chunk together; a larger photo is alone."""


class Photo(NamedTuple):
    """A photo in a storage.

    Attributes:
        name: relative to the folder of photos.
        fingerprint: of the name and the content, the latter as far as the storage tells it; 64 bits, so that beside a
            hundred million finished photos one in 180 billion is taken for finished.
    """

    name: str
    fingerprint: int
    size: int


class Chunk(NamedTuple):
    """Some photos.

    Attributes:
        done: how many photos that an earlier run has finished were met on the way here.
        passed_over: how many files that are no photos were, by suffix.
        total: how many photos all chunks have; the last chunk, which has none itself, knows.
        problem: why the list ends here.
    """

    photos: tuple[Photo, ...]
    done: int = 0
    passed_over: tuple[tuple[str, int], ...] = ()
    total: int | None = None
    problem: str | None = None


def chunks(
    storage: Storage, finished: UInt64[np.ndarray, " photos"], photos: int = PHOTOS, beside: str | None = None
) -> Iterator[Chunk]:
    """List a storage, and yield what is to be done as it is found.

    Hidden files, and what operating systems put beside photos, are passed over silently.

    Args:
        finished: fingerprints of photos that are left out, sorted.
        photos: of a chunk at most.
        beside: start of the names of results, which are left out.
    """
    found: list[Photo] = []
    passed_over = Counter[str]()
    done = total = 0
    for page in storage.pages():
        for name, about in page:
            path = PurePosixPath(name)
            if not path.name or name.endswith("/") or (beside is not None and name.startswith(beside)):
                continue
            if any(part.startswith(".") or part in SYSTEM_FOLDERS for part in path.parts):
                continue
            suffix = path.suffix.lower()
            if suffix not in PHOTO_SUFFIXES or why_unreadable(Path(name)) is not None:
                passed_over[suffix or "without a suffix"] += 1
                continue
            photo = _photo(name, about)
            if _has(finished, photo.fingerprint):
                done += 1
                continue
            if found and (len(found) == photos or sum(each.size for each in found) + photo.size > BYTES_MAX):
                yield Chunk(tuple(found), done, tuple(passed_over.items()))
                found, done = [], 0
                passed_over.clear()
            found.append(photo)
            total += 1
    if found:
        yield Chunk(tuple(found))
    yield Chunk((), done, tuple(passed_over.items()), total)


def _photo(name: str, about: Json) -> Photo:
    changed = next((about[key] for key in ("ETag", "etag", "mtime", "last_modified", "updated") if key in about), "")
    size = int(about.get("size", about.get("Size", 0)) or 0)
    digest = hashlib.blake2b(f"{name}\0{changed}\0{size}".encode("utf-8", "surrogateescape"), digest_size=8)
    return Photo(name, int.from_bytes(digest.digest(), "little"), size)


def _has(sorted_numbers: UInt64[np.ndarray, " photos"], number: int) -> bool:
    place = int(np.searchsorted(sorted_numbers, np.uint64(number)))
    return place < len(sorted_numbers) and int(sorted_numbers[place]) == number
