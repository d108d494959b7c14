"""What dedup remembers of each record: one row of fixed width, and how rows are read again."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

from clipkit.features.vectors import Vectors
from clipkit.methods.dedupers.base import Deduper
from clipkit.stream.spool import Rows

_HEAD: Final = struct.Struct("<dII")
_READ: Final = 64 << 20  # bytes read at once


class Table:
    """Rows of some methods: the number to rank by (f64, NaN where there is none), a bit for each method that has a key,
    the keys, and the features f32 [dim] where a method needs them.
    """

    def __init__(self, methods: Sequence[Deduper], dim: int) -> None:
        self._widths = [method.width for method in methods]
        self._encodes = [method.encodes for method in methods]
        keys = [(method.name, "u1", (method.width,)) for method in methods]
        self.head = np.dtype([("value", "<f8"), ("present", "<u4"), ("unused", "<u4"), *keys])
        self.dim = dim
        self.row = np.dtype([("head", self.head), ("features", "<f4", (dim,))])

    def pack(self, value: float, keys: Sequence[bytes], features: np.ndarray | None) -> bytes:
        """One row.

        keys: of each method, b"" where it has none; of those that encode it is made here. features: unit length f32
        [dim]; None, as zeros: there are none.
        """
        if self.dim and features is not None:
            own = feature_key(features)
            keys = [own if encodes else key for encodes, key in zip(self._encodes, keys, strict=True)]
        present = sum(1 << number for number, key in enumerate(keys) if key)
        padded = (key or bytes(width) for key, width in zip(keys, self._widths, strict=True))
        body = bytes(4 * self.dim) if features is None else features.astype("<f4").tobytes()
        return _HEAD.pack(value, present, 0) + b"".join(padded) + body

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


def feature_key(row: np.ndarray) -> bytes:
    """16 bytes that stand for a unit vector f32 [d]; b"" for one of zeros, which points nowhere."""
    return hashlib.blake2b(row.astype("<f4").tobytes(), digest_size=16).digest() if row.any() else b""
