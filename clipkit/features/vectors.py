"""Unit vectors that lie in files, taken a few at a time: what is resident stays small however many there are."""

from __future__ import annotations

import copy
import mmap
from collections.abc import Iterator, Sequence
from typing import IO, Final

import numpy as np

_RELEASE_AFTER: Final = 2048  # rows; a row looked at maps up to 64 KiB around it


class Vectors:
    """Rows f32 of one width in one or more files of fixed-width records, read through memory maps.

    files: (file, records in it); they may be closed afterwards. dtype: of a record; its field `features` is the row.
    chosen: int64 [n], which records, counted over all files, are the rows 0 to n - 1 here.
    """

    def __init__(self, files: Sequence[tuple[IO[bytes], int]], dtype: np.dtype, chosen: np.ndarray) -> None:
        self.dim: int = dtype["features"].shape[0]
        self._maps: list[mmap.mmap] = []
        self._arrays: list[np.ndarray] = []
        self._starts = [0]
        for file, count in files:
            self._starts.append(self._starts[-1] + count)
            if count:
                self._maps.append(mmap.mmap(file.fileno(), count * dtype.itemsize, access=mmap.ACCESS_READ))
                self._arrays.append(np.frombuffer(self._maps[-1], dtype, count)["features"])
            else:
                self._arrays.append(np.empty((0, self.dim), np.float32))
        self._chosen = chosen
        self._looked = 0

    def __len__(self) -> int:
        return len(self._chosen)

    def only(self, rows: np.ndarray) -> Vectors:
        """Some of the rows, as vectors of their own over the same maps."""
        some = copy.copy(self)
        some._chosen = self._chosen[rows]
        return some

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Some rows as f32 [m, d], a copy."""
        where = self._chosen[rows]
        out = np.empty((len(where), self.dim), np.float32)
        for begin in range(0, len(where), _RELEASE_AFTER):
            piece = slice(begin, begin + _RELEASE_AFTER)
            for array, start, end in zip(self._arrays, self._starts, self._starts[1:], strict=False):
                here = np.flatnonzero((where[piece] >= start) & (where[piece] < end))
                out[here + begin] = array[where[piece][here] - start]
            self._release(len(where[piece]))
        return out

    def blocks(self, rows: int = 8192) -> Iterator[tuple[int, np.ndarray]]:
        """All rows in order: (number of the first, f32 [<= rows, d])."""
        for start in range(0, len(self), rows):
            yield start, self.take(np.arange(start, min(start + rows, len(self))))

    def _release(self, looked: int) -> None:
        """Let go of pages that were looked at: they stay in the system's cache, and no longer count as ours."""
        self._looked += looked
        if self._looked >= _RELEASE_AFTER and hasattr(mmap, "MADV_DONTNEED"):
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)
            self._looked = 0
