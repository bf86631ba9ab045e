"""Tables of faces in Parquet: a file per chunk, which is written last and so says that the chunk is finished."""

import hashlib
import io
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow  # pyright: ignore[reportMissingTypeStubs]
import pyarrow.parquet  # pyright: ignore[reportMissingTypeStubs]
from jaxtyping import UInt64

from leanface.batch.chunks import Chunk
from leanface.batch.storage import FACES, Storage
from leanface.errors import ArtifactError
from leanface.face.coefficients import LAYOUT
from leanface.files import Json

READERS = 32
"""Threads that read tables at the same time: a storage in a network answers slowly, but many."""

pa: Any = pyarrow
pq: Any = pyarrow.parquet

_LIST: Any = pa.list_(pa.float32())
_POINTS: Any = pa.list_(_LIST)
_POSE = [(f"{name}_deg", pa.float64()) for name in ("pitch", "yaw", "roll")]
_CROP = [(name, pa.float64()) for name in ("scale", "tx", "ty", "size")]

SCHEMA: Any = pa.schema(
    [
        ("photo", pa.string()),
        ("fingerprint", pa.uint64()),
        ("face", pa.int32()),
        ("coefficients", pa.struct([(name, _LIST) for name in LAYOUT])),
        ("pose", pa.struct([*_POSE, ("rotation", _POINTS), ("translation_m", _LIST)])),
        ("landmarks", _POINTS),
        ("crop", pa.struct(_CROP)),
        ("detection", pa.struct([("box", _LIST), ("landmarks", _POINTS), ("score", pa.float64())])),
    ]
)
"""A row per face: its photo, and what `leanface.reconstruction.result.Reconstruction.to_json` gives."""


def chunk_name(chunk: Chunk) -> str:
    """Name a chunk by its photos, so that a second attempt takes the place of the first."""
    return hashlib.blake2b(repr(chunk.photos).encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def encode_table(rows: Iterable[Json], made_with: Json) -> bytes:
    """Encode rows of `SCHEMA`, with how they were made beside it."""
    content = io.BytesIO()
    schema = SCHEMA.with_metadata({"made_with": json.dumps(made_with)})
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), content, compression="zstd")
    return content.getvalue()


def finished(storage: Storage) -> UInt64[np.ndarray, " photos"]:
    """Return the fingerprints of all photos that have faces in the storage's tables, sorted.

    Raises:
        ArtifactError: the storage or one of its tables cannot be read.
    """

    def read(name: str) -> UInt64[np.ndarray, " photos"]:
        content = storage.read(name)
        try:
            table = pq.ParquetFile(io.BytesIO(content or b"")).read(columns=["fingerprint"])
            return np.unique(table["fingerprint"].to_numpy())
        except (pa.ArrowException, KeyError) as error:
            raise ArtifactError(f"{storage.url}/{name} is no table of faces ({error}). Remove it.") from None

    with ThreadPoolExecutor(READERS) as threads:
        parts = list(threads.map(read, [name for name in storage.names(FACES) if name.endswith(".parquet")]))
    return np.unique(np.concatenate([np.empty(0, np.uint64), *parts]))
