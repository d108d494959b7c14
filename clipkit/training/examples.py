"""Examples: pictures with their captions, in an order that a seed and an epoch decide, from any place on."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import msgspec
import numpy as np

from clipkit.errors import RecordError
from clipkit.images.opener import Opener
from clipkit.stream.captions import ORIGINAL, Caption, captions, in_use_first
from clipkit.stream.hashing import ticket
from clipkit.stream.record import Record, image_of
from clipkit.stream.spool import Rows

_CHUNK: Final = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Example:
    """name: its id, by which all that is random is drawn. captions: what the picture may be called, the one in use
    first. negatives: what it is not. image: the encoded bytes, or a reference for `Examples.read`. problem: why there
    is none of it all, of what has a place in the order and cannot be used.
    """

    name: str
    captions: Sequence[Caption]
    negatives: Sequence[Caption]
    image: bytes | str
    problem: RecordError | None = None


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


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Row).decode


def row_of(record: Record) -> bytes:
    """A record as a row. Raises RecordError: `missing-text`, `bad-texts`, `bad-field` for what is no example."""
    shown, negatives = captions_of(record)
    return _encode(Row(record.id or record.digest.hex(), image_of(record), shown, negatives))


def rows_of(rows: Rows) -> Iterator[Row]:
    """What `row_of` made, read again."""
    return map(_decode, rows.data())


def captions_of(record: Record) -> tuple[list[Caption], list[Caption]]:
    """What a record's picture is called, the caption in use first, and what it is not. Raises as `row_of` does.

    A record with neither `text` nor `texts` may have a `caption`, as the json has that img2dataset writes.
    """
    found = in_use_first(record)
    if not found and isinstance(caption := record.get("caption"), str) and caption.strip():
        found = [Caption(caption, ORIGINAL)]
    if not found:
        raise RecordError("missing-text", "no caption: neither 'text' nor 'texts'")
    return found, captions(record, negative=True)


class RecordExamples:
    """Examples of records: the rows lie on disk, and pictures are opened where they are.

    Memory: 28 bytes an example, and 16 more while an epoch's order is made.
    """

    def __init__(self, rows: Rows, opener: Opener, seed: int) -> None:
        self._file, self._opener, self._seed = rows.file, opener, seed
        self._lengths = np.array(rows.lengths, np.uint32)
        self._starts = np.cumsum(self._lengths, dtype=np.uint64) - self._lengths
        drawn = b"".join(ticket(name, seed, "example")[:8] for name in _names(rows))
        self._tickets = np.frombuffer(drawn, ">u8").astype(np.uint64)
        self.digest = self._digest()

    def _digest(self) -> str:
        digest = hashlib.blake2b(self._lengths.tobytes(), digest_size=16)
        end = int(self._lengths.sum(dtype=np.uint64))
        for start in range(0, end, _CHUNK):
            digest.update(os.pread(self._file.fileno(), min(_CHUNK, end - start), start))
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._lengths)

    def walk(self, first: int, rank: int, world: int) -> Iterator[tuple[int, int, Example]]:
        position = first + (rank - first) % world
        epoch, order = -1, np.zeros(0, np.int64)
        while True:
            if position // len(self) != epoch:
                epoch = position // len(self)
                order = self._order(epoch)
            row = self._row(int(order[position % len(self)]))
            yield position, epoch, Example(row.name, row.captions, row.negatives, row.image)
            position += world

    def _order(self, epoch: int) -> np.ndarray:
        """The numbers of all rows as this epoch has them."""
        drawn = int.from_bytes(ticket("", self._seed, f"epoch/{epoch}")[:8], "big")
        return np.argsort(_mixed(self._tickets ^ np.uint64(drawn)), kind="stable")

    def _row(self, number: int) -> Row:
        data = os.pread(self._file.fileno(), int(self._lengths[number]), int(self._starts[number]))
        return _decode(data)

    def read(self, example: Example) -> bytes:
        assert isinstance(example.image, str)
        return self._opener.read(example.image)


def _names(rows: Rows) -> Iterator[str]:
    """The names of all examples, as `row_of` gave them: records without an id have one, too."""
    named = rows.ids()
    return (name or _decode(data).name for name, data in zip(named, rows.data(), strict=True))


def _mixed(tickets: np.ndarray) -> np.ndarray:
    """uint64 numbers, each made another one (splitmix64's last step; Steele, Lea and Flood, 2014): what was even stays
    so, and neighbours in one order are none in the next."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        tickets = (tickets ^ (tickets >> np.uint64(shift))) * np.uint64(factor)
    mixed: np.ndarray = tickets ^ (tickets >> np.uint64(31))
    return mixed
