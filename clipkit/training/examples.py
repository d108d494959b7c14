"""Examples: pictures with their captions, in an order that a seed and an epoch decide, from any place on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np

from clipkit.images.opener import Opener
from clipkit.methods.adapters.data import shuffled
from clipkit.stream.captions import Caption
from clipkit.stream.spool import Rows


@dataclass(frozen=True, slots=True)
class Example:
    """name: its id, by which all that is random is drawn. captions: what the picture may be called, the one in use
    first. negatives: what it is not. image: the encoded bytes, or a reference for `Examples.read`."""

    name: str
    captions: Sequence[Caption]
    negatives: Sequence[Caption]
    image: bytes | str


class Examples(Protocol):
    """What is trained on. digest: over all of it, so that a resumed run is refused other data."""

    digest: str

    def __len__(self) -> int:
        """Examples of an epoch."""

    def walk(self, first: int, rank: int, world: int) -> Iterator[tuple[int, int, Example]]:
        """(position, epoch, example) from position `first` on, without end: those with position % world == rank.

        Position p is of epoch p // len; every example has one place in each epoch; the order hangs on seed and epoch.
        """

    def read(self, example: Example) -> bytes:
        """The encoded image. From several threads. Raises RecordError."""


class Row(msgspec.Struct, array_like=True, frozen=True):
    """An example as a row of the runner's first pass."""

    name: str
    image: str
    captions: list[Caption]
    negatives: list[Caption]


class RecordExamples:
    """Examples of records: the rows lie on disk, and pictures are opened where they are.

    Memory: 8 bytes an example, and an epoch's order, 8 more.
    """

    def __init__(self, rows: Rows, opener: Opener, seed: int) -> None:
        self._rows, self._opener, self._seed = rows, opener, seed
        self._names = list(rows.ids())
        digest = hashlib.blake2b(digest_size=16)
        for data in rows.data():
            digest.update(hashlib.blake2b(data, digest_size=16).digest())
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._rows)

    def walk(self, first: int, rank: int, world: int) -> Iterator[tuple[int, int, Example]]:
        position = first + (rank - first) % world
        epoch, order = -1, np.zeros(0, np.int64)
        while True:
            if position // len(self) != epoch:
                epoch = position // len(self)
                order = shuffled(self._names, self._seed, f"epoch/{epoch}")
            (data,) = self._rows.take([int(order[position % len(self)])])
            row = msgspec.msgpack.decode(data, type=Row)
            yield position, epoch, Example(row.name, row.captions, row.negatives, row.image)
            position += world

    def read(self, example: Example) -> bytes:
        assert isinstance(example.image, str)
        return self._opener.read(example.image)
