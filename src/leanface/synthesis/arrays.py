"""Arrays on disk that are written piece by piece and read by memory-mapping."""

import hashlib
from pathlib import Path
from typing import Self

import numpy as np


class ArrayWriter:
    """Writes a .npy file row by row, in order, with its sha256 computed on the way; memory does not grow with it.

    Plain writes rather than a memory map: of a full disk they say so, where a map kills the process.
    """

    def __init__(self, path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        self.name = path.name
        self._rows_missing, self._row_shape, self._dtype = shape[0], shape[1:], np.dtype(dtype)
        self._hasher = hashlib.sha256()
        self._file = path.open("w+b")
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._file.seek(0)
        self._hasher.update(self._file.read())

    def append(self, rows: np.ndarray) -> None:
        """Append rows.

        Raises:
            ValueError: there are too many, or they are of another dtype or shape.
            OSError: the disk is full.
        """
        if rows.dtype != self._dtype or rows.shape[1:] != self._row_shape or len(rows) > self._rows_missing:
            raise ValueError(
                f"expected at most {self._rows_missing} rows of {self._dtype} {self._row_shape}, "
                f"got {len(rows)} of {rows.dtype} {rows.shape[1:]}"
            )
        rows = np.ascontiguousarray(rows)
        self._rows_missing -= len(rows)
        self._hasher.update(rows.data)
        self._file.write(rows.data)

    def sha256(self) -> str:
        """Return the SHA-256 of the whole file.

        Raises:
            ValueError: rows are missing.
        """
        if self._rows_missing:
            raise ValueError(f"{self._rows_missing} rows of {self.name} are missing")
        return self._hasher.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
