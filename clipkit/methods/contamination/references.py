"""All items of all benchmarks, and which of them a record overlaps."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from clipkit.errors import ClipkitError
from clipkit.methods.contamination.benchmarks import Benchmark, Reading, Signature
from clipkit.methods.contamination.index import EqualKeys, Found, Index, NearCodes, NearFeatures
from clipkit.methods.dedupers.base import Deduper
from clipkit.stream.record import encode_json

MOST: Final = 100  # items told of a record, by one method, of one benchmark
_HELD: Final = 1 << 20  # pairs held before those that are not told of go: 24 bytes each


class References:
    """Filled by `read`; then `overlaps` may be called from several threads.

    items: how many differently named items each benchmark has. digest: hex, of all that decides what overlaps.
    """

    def __init__(self, methods: Sequence[Deduper], dim: int) -> None:
        self._methods = methods
        self._indices = [_index(number, method, dim) for number, method in enumerate(methods)]
        self._names: list[str] = []
        self._sets = array("H")
        self._digest = hashlib.blake2b(digest_size=16)
        self.items: dict[str, int] = {}

    def read(self, benchmarks: Sequence[Benchmark], reading: Reading) -> None:
        """Take all items. Raises ClipkitError for a benchmark without any, which would protect nothing unnoticed."""
        try:
            for number, benchmark in enumerate(benchmarks):
                self._read(number, benchmark, reading)
        finally:
            for index in self._indices:
                index.close()
        self._benchmarks = [benchmark.name for benchmark in benchmarks]

    def _read(self, number: int, benchmark: Benchmark, reading: Reading) -> None:
        before = len(self._names)
        self._digest.update(encode_json([benchmark.name]))
        for name, signature in benchmark.items(reading):
            self._add(number, name, signature)
        self.items[benchmark.name] = len(set(self._names[before:]))
        if not self.items[benchmark.name]:
            failed = [notice.removeprefix("--against: ") for notice in reading.left_out.notices]
            said = f"--against {benchmark.path}: nothing in it can be compared"
            raise ClipkitError(said, failed[0] if failed else "it is empty")

    def _add(self, benchmark: int, name: str, signature: Signature) -> None:
        for index in self._indices:
            index.add(len(self._names), signature)
        self._names.append(name)
        self._sets.append(benchmark)
        self._digest.update(encode_json([name, *(key.hex() for key in signature.keys)]))
        if signature.features is not None:
            self._digest.update(signature.features.astype("<f4").tobytes())

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def overlaps(self, asked: Sequence[Signature]) -> list[list[dict[str, Any]]]:
        """What each overlaps: `{"set", "id", "by", "distance"}` of each item and method.

        By the order of the methods, then nearest first, then in the order of the benchmarks; of one method and
        benchmark at most MOST. distance: bits for hashes, 1 - cosine for features, 0 for what is equal.
        """
        found: list[list[dict[str, Any]]] = [[] for _ in asked]
        sets = np.frombuffer(self._sets, np.uint16)
        for method, index in zip(self._methods, self._indices, strict=True):
            at, numbers, distances = _gathered(index.find(asked), sets)
            for query, number, distance in zip(at.tolist(), numbers.tolist(), distances.tolist(), strict=True):
                said = {"set": self._benchmarks[self._sets[number]], "id": self._names[number], "by": method.name}
                found[query].append(said | {"distance": distance if method.encodes else int(distance)})
        return found


def _index(column: int, method: Deduper, dim: int) -> Index:
    if method.encodes:
        return NearFeatures(dim, method.limit)
    return EqualKeys(column) if method.limit is None else NearCodes(column, method.limit)


def _gathered(pieces: Iterable[Found], sets: np.ndarray) -> Found:
    """The `_nearest` of all pieces; where everything is near everything, only some are held."""
    held, count, most = [_joined([])], 0, _HELD
    for piece in pieces:
        held.append(piece)
        count += len(piece[0])
        if count > most:
            held = [_nearest(_joined(held), sets)]
            count = len(held[0][0])
            most = _HELD + 2 * count
    return _nearest(_joined(held), sets)


def _joined(pieces: Sequence[Found]) -> Found:
    nothing = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    at, numbers, distances = zip(nothing, *pieces, strict=True)
    return np.concatenate(at), np.concatenate(numbers), np.concatenate(distances)


def _nearest(found: Found, sets: np.ndarray) -> Found:
    """By query, nearest first; of one query and benchmark at most MOST."""
    at, numbers, distances = found
    order = np.lexsort((numbers, distances, sets[numbers], at))
    group = np.stack([at[order], sets[numbers[order]]])
    new = np.ones(len(order), bool)
    new[1:] = (group[:, 1:] != group[:, :-1]).any(axis=0)
    starts = np.flatnonzero(new)
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    kept = order[rank < MOST]
    kept = kept[np.lexsort((numbers[kept], distances[kept], at[kept]))]
    return at[kept], numbers[kept], distances[kept]
