"""Indices over the items of benchmarks, one for each way to compare: exact, and each query is answered alone."""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Iterator, Sequence
from typing import Final, Protocol

import numpy as np

from clipkit.features.neighbours import UNSURE
from clipkit.methods.contamination.benchmarks import Signature
from clipkit.methods.dedupers.hamming import CodeIndex, popcount
from clipkit.stream.scratch import scratch

DECIMALS: Final = 6  # of a distance
_COLUMNS: Final = 8192  # features compared at once
_AGAIN: Final = 4096  # pairs worked out in float64 at once

# Which query, which item, how far apart: int64 [m], int64 [m], f64 [m].
Found = tuple[np.ndarray, np.ndarray, np.ndarray]


class Index(Protocol):
    """Items by number, in the order in which they are added."""

    def add(self, number: int, signature: Signature) -> None:
        """Take an item, if it has what is compared here."""

    def close(self) -> None:
        """No more items come."""

    def find(self, asked: Sequence[Signature]) -> Iterator[Found]:
        """All near pairs of queries and items, in pieces; each once. May be called from several threads."""


class EqualKeys:
    """Keys that must be equal: some 200 bytes an item."""

    def __init__(self, column: int) -> None:
        self._column = column
        self._numbers: dict[bytes, list[int]] = {}

    def add(self, number: int, signature: Signature) -> None:
        if key := signature.keys[self._column]:
            self._numbers.setdefault(key, []).append(number)

    def close(self) -> None:
        pass

    def find(self, asked: Sequence[Signature]) -> Iterator[Found]:
        for at, signature in enumerate(asked):
            if numbers := self._numbers.get(signature.keys[self._column]):
                yield np.full(len(numbers), at), np.array(numbers), np.zeros(len(numbers))


class NearCodes:
    """64-bit codes at most `bits` bits apart (`CodeIndex`): some 100 bytes an item."""

    def __init__(self, column: int, bits: int) -> None:
        self._column, self._bits = column, bits
        self._codes, self._added = array("Q"), array("q")

    def add(self, number: int, signature: Signature) -> None:
        if key := signature.keys[self._column]:
            self._codes.append(int.from_bytes(key))
            self._added.append(number)

    def close(self) -> None:
        self._values, self._numbers = np.array(self._codes, np.uint64), np.array(self._added, np.int64)
        self._index = CodeIndex(self._values, self._bits)
        del self._codes, self._added

    def find(self, asked: Sequence[Signature]) -> Iterator[Found]:
        there = [at for at, signature in enumerate(asked) if signature.keys[self._column]]
        codes = np.array([int.from_bytes(asked[at].keys[self._column]) for at in there], np.uint64)
        for a, b in self._index.near(codes):
            yield np.array(there)[a], self._numbers[b], popcount(codes[a] ^ self._values[b]).astype(np.float64)


class NearFeatures:
    """Features whose cosine is over 1 - eps.

    Blocks are multiplied in float32; what comes near the limit is worked out in float64, each pair alone, so that
    neither an answer nor a distance depends on who else is asked for. The features f32 lie in a temporary file, mapped:
    4 bytes a dimension and item, 2 kB for 512, which the system may take back from memory.
    """

    def __init__(self, dim: int, eps: float) -> None:
        self._dim, self._limit = dim, 1 - eps
        self._file = scratch()
        self._added = array("q")

    def add(self, number: int, signature: Signature) -> None:
        if signature.features is not None:
            self._file.write(signature.features.astype("<f4").tobytes())
            self._added.append(number)

    def close(self) -> None:
        self._numbers = np.array(self._added, np.int64)
        self._file.flush()
        n = len(self._added)
        if n:
            mapped = mmap.mmap(self._file.fileno(), 4 * n * self._dim, access=mmap.ACCESS_READ)
            self._features = np.frombuffer(mapped, "<f4").reshape(n, self._dim)
        else:
            self._features = np.empty((0, self._dim), np.float32)
        self._file.close()
        del self._added

    def find(self, asked: Sequence[Signature]) -> Iterator[Found]:
        there = [(at, signature.features) for at, signature in enumerate(asked) if signature.features is not None]
        if not there:
            return
        positions, rows = np.array([at for at, _ in there]), np.stack([row for _, row in there])
        for start in range(0, len(self._features), _COLUMNS):
            block = self._features[start : start + _COLUMNS]
            at, to = np.nonzero(rows @ block.T > self._limit - UNSURE)
            for begin in range(0, len(at), _AGAIN):
                a, b = at[begin : begin + _AGAIN], to[begin : begin + _AGAIN]
                cosines = np.einsum("nd,nd->n", rows[a].astype(np.float64), block[b].astype(np.float64))
                over = cosines > self._limit
                distances = np.maximum(np.round(1 - cosines[over], DECIMALS), 0.0)
                yield positions[a[over]], self._numbers[b[over] + start], distances
