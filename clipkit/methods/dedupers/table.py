"""What dedup remembers of each record."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np

from clipkit.features.rows import FeatureRows
from clipkit.methods.dedupers.base import Deduper

_HEAD: Final = struct.Struct("<dII")


class Table(FeatureRows):
    """Rows of some methods: the number to rank by (f64, NaN where there is none), a bit for each method that has a key,
    the keys, and the features f32 [dim] where a method needs them.
    """

    def __init__(self, methods: Sequence[Deduper], dim: int) -> None:
        self._widths = [method.width for method in methods]
        self._encodes = [method.encodes for method in methods]
        keys = [(method.name, "u1", (method.width,)) for method in methods]
        super().__init__(np.dtype([("value", "<f8"), ("present", "<u4"), ("unused", "<u4"), *keys]), dim)

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
        return self.join(_HEAD.pack(value, present, 0) + b"".join(padded), features)


def feature_key(row: np.ndarray) -> bytes:
    """16 bytes that stand for a unit vector f32 [d]; b"" for one of zeros, which points nowhere."""
    return hashlib.blake2b(row.astype("<f4").tobytes(), digest_size=16).digest() if row.any() else b""
