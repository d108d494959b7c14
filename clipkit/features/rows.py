"""What a verb that reads everything first remembers of each record: a head of fixed width, and unit features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from clipkit.features.vectors import Vectors
from clipkit.stream.spool import Rows

_READ: Final = 64 << 20  # bytes read at once


class FeatureRows:
    """The layout of such rows, and how they are read again.

    head: little-endian fields, in all a multiple of 8 bytes. dim: of the features f32 [dim]; 0 where there are none.
    """

    def __init__(self, head: np.dtype, dim: int) -> None:
        self.head, self.dim = head, dim
        self.row = np.dtype([("head", head), ("features", "<f4", (dim,))])

    def join(self, head: bytes, features: np.ndarray | None) -> bytes:
        """One row. features: unit length f32 [dim]; None, as zeros: there are none."""
        return head + (bytes(4 * self.dim) if features is None else features.astype("<f4").tobytes())

    def heads(self, parts: Sequence[Rows]) -> np.ndarray:
        """All rows without their features, `head` [n]."""
        heads = np.empty(sum(map(len, parts)), self.head)
        start = 0
        for rows in parts:
            for some in self._read(rows):
                heads[start : start + len(some)] = some["head"]
                start += len(some)
        return heads

    def vectors(self, parts: Sequence[Rows]) -> Vectors:
        """The features of all rows."""
        count = sum(map(len, parts))
        return Vectors([(rows.file, len(rows)) for rows in parts], self.row, np.arange(count))

    def _read(self, rows: Rows) -> Iterator[np.ndarray]:
        assert rows.width in (None, self.row.itemsize), "rows of another layout"
        file = rows.file
        file.seek(0)
        while data := file.read(_READ // self.row.itemsize * self.row.itemsize):
            yield np.frombuffer(data, self.row)
