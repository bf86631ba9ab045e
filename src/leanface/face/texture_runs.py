"""A texture row by row, as runs of texels that show one triangle: found once, and then painted from every photo."""

from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Float32, Int, UInt8

from leanface.face.compiled import compiled


class Spans(NamedTuple):
    """Runs by the triangle that they show: what a triangle shows is computed once for all of its rows.

    Attributes:
        starts: where each triangle's spans begin, and where the last one's end.
        places: row, first column and end of each.
    """

    starts: Int[np.ndarray, " triangles+1"]
    places: Int[np.ndarray, "spans 3"]


class Runs(NamedTuple):
    """Runs of a square texture. Each ends where the row's next one begins, or at the texture's edge.

    Attributes:
        rows: where each row's runs begin in the other two arrays, and where the last row's end.
        left: column of a run's first texel.
        shown: the triangle that a run shows; or, where it shows none, ~ of the flat index of the texel whose color it
            takes, so that viewers, which filter across the rim of the surface, find colors from nearby.
    """

    rows: Int[np.ndarray, " size+1"]
    left: Int[np.ndarray, " runs"]
    shown: Int[np.ndarray, " runs"]

    @classmethod
    def of(cls, triangle: Int[np.ndarray, "size size"]) -> Self:
        """Find the runs of a map of triangles, -1 where a texel shows none.

        A texel that shows none takes its color from one in the smallest square of 2, 4, 8, ... texels that has any.
        """
        shown = triangle.astype(np.int32)
        levels = [shown]
        while len(levels[-1]) > 1:
            side = (len(levels[-1]) + 1) // 2
            levels.append(np.full((side, side), -1, np.int32))
            if _halve(levels[-2], levels[-1], len(levels) == 2):
                break
        for finer, coarser in zip(levels[-2:0:-1], levels[:1:-1], strict=True):
            _fill_from(coarser, finer)
        if len(levels) > 1:
            _point(levels[1], shown)
        rows = np.zeros(len(shown) + 1, np.int32)
        _count(shown, rows)
        runs = cls(rows, np.empty(rows[-1], np.int32), np.empty(rows[-1], np.int32))
        _list(shown, *runs)
        return runs

    def by_first_row(self) -> tuple[Self, Int[np.ndarray, " shown"]]:
        """Renumber the triangles that are shown as they first appear, row by row; return their old numbers, too."""
        shows = self.shown >= 0
        triangles, first, which = np.unique(self.shown[shows], return_index=True, return_inverse=True)
        order = np.argsort(first)
        shown = self.shown.copy()
        shown[shows] = np.argsort(order)[which]
        return self._replace(shown=shown), triangles[order]

    def spans(self) -> Spans:
        """Gather the runs of each triangle that is shown. All from 0 on must be."""
        size = len(self.rows) - 1
        row = np.repeat(np.arange(size), np.diff(self.rows))
        length = np.diff(row * size + self.left, append=size * size)
        shows = np.flatnonzero(self.shown >= 0)
        places = np.stack([row, self.left, self.left + length], 1, dtype=np.int32)
        starts = np.cumsum([0, *np.bincount(self.shown[shows])], dtype=np.int32)
        return Spans(starts, places[shows[np.argsort(self.shown[shows], kind="stable")]])

    def spread(self, texture: UInt8[np.ndarray, "size size 3"]) -> None:
        """Fill in place what shows no triangle."""
        spread_rows(*self, texture, 0, len(texture))


def triangle_map(
    pixel: Float32[np.ndarray, "corners 2"], triangles: Int[np.ndarray, "triangles 3"], size: int
) -> Int[np.ndarray, "size size"]:
    """Draw the number of the triangle that covers each pixel's center, the last one of several; -1 without any."""
    found = np.full((size, size), -1, np.int32)
    _number(pixel, triangles, found)
    return found


@compiled()
def _number(pixel: Any, triangles: Any, found: Any) -> None:
    size, zero, one = found.shape[0], np.float32(0), np.float32(1)
    for index in range(triangles.shape[0]):
        a, b, c = triangles[index, 0], triangles[index, 1], triangles[index, 2]
        x0, y0, x1, y1, x2, y2 = pixel[a, 0], pixel[a, 1], pixel[b, 0], pixel[b, 1], pixel[c, 0], pixel[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area >= -np.float32(1e-9):
            continue
        inverse = one / area
        second_x, second_y = (y2 - y0) * inverse, -(x2 - x0) * inverse
        third_x, third_y = -(y1 - y0) * inverse, (x1 - x0) * inverse
        for row in range(max(int(np.ceil(min(y0, y1, y2))), 0), min(int(np.floor(max(y0, y1, y2))), size - 1) + 1):
            y = np.float32(row) - y0
            for column in range(
                max(int(np.ceil(min(x0, x1, x2))), 0), min(int(np.floor(max(x0, x1, x2))), size - 1) + 1
            ):
                x = np.float32(column) - x0
                second, third = x * second_x + y * second_y, x * third_x + y * third_y
                if second >= zero and third >= zero and second + third <= one:
                    found[np.uint32(row), np.uint32(column)] = index


@compiled()
def _halve(finer: Any, coarser: Any, first: bool) -> bool:
    """Take the first texel that is known of each square of four, or its flat index; tell whether all are known now."""
    side = finer.shape[0]
    for row in range(side):
        for column in range(side):
            i, j = np.uint32(row // 2), np.uint32(column // 2)
            if coarser[i, j] < 0 and finer[row, column] >= 0:
                coarser[i, j] = row * side + column if first else finer[row, column]
    return bool(coarser.min() >= 0)


@compiled()
def _fill_from(coarser: Any, finer: Any) -> None:
    for row in range(finer.shape[0]):
        for column in range(finer.shape[0]):
            if finer[row, column] < 0:
                finer[row, column] = coarser[row // 2, column // 2]


@compiled()
def _point(sources: Any, shown: Any) -> None:
    """Replace -1 in shown (S,S) by ~ of the flat index of the texel whose color is taken, if there is one."""
    side = shown.shape[0]
    for row in range(side):
        for column in range(side):
            if shown[row, column] < 0:
                source = sources[row // 2, column // 2]
                shown[row, column] = ~(source if source >= 0 else row * side + column)


@compiled()
def _count(shown: Any, rows: Any) -> None:
    for row in range(shown.shape[0]):
        runs = 1
        for column in range(1, shown.shape[0]):
            runs += shown[row, column] != shown[row, column - 1]
        rows[row + 1] = rows[row] + runs


@compiled()
def _list(shown: Any, rows: Any, left: Any, values: Any) -> None:
    for row in range(shown.shape[0]):
        run = rows[row]
        for column in range(shown.shape[0]):
            if column == 0 or shown[row, column] != shown[row, column - 1]:
                left[run], values[run] = column, shown[row, column]
                run += 1


@compiled()
def spread_rows(rows: Any, left: Any, shown: Any, texture: Any, first_row: int, end_row: int) -> None:
    """Fill what shows no triangle in some rows; see `Runs`. What it takes its color from must be there."""
    size = texture.shape[0]
    for row in range(first_row, end_row):
        r = np.uint32(row)
        for run in range(rows[row], rows[row + 1]):
            if shown[run] >= 0:
                continue
            at = ~shown[run]
            i, j = np.uint32(at // size), np.uint32(at % size)
            red, green, blue = texture[i, j, 0], texture[i, j, 1], texture[i, j, 2]
            end = left[run + 1] if run + 1 < rows[row + 1] else size
            for column in range(left[run], end):
                k = np.uint32(column)
                texture[r, k, 0] = red
                texture[r, k, 1] = green
                texture[r, k, 2] = blue
