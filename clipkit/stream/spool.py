"""Records on disk while a verb reads everything first: in input order with a row for each, or sorted by a key.

They lie in temporary files: see `scratch`.
"""

from __future__ import annotations

import heapq
import itertools
import struct
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

import msgspec

from clipkit.errors import RecordError
from clipkit.stream.record import Record
from clipkit.stream.scratch import scratch
from clipkit.stream.sources import BadLine

_LENGTH = struct.Struct("<I")
_CHUNK = 128 << 20  # bytes of records sorted in memory at once
_MERGED = 64  # sorted runs merged at once; each is an open file


class _Saved(msgspec.Struct, array_like=True):
    """A record, or a BadLine: then with its error."""

    where: str
    key: str | None
    origin: str
    line: bytes | None  # of the record; None: a BadLine without one
    text: bytes = b""
    digest: bytes = b""
    error: list[Any] | None = None  # kind, message, hint, where


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Saved).decode


def save(item: Record | BadLine) -> bytes:
    """An item of a source as bytes."""
    if isinstance(item, Record):
        return _encode(_Saved(item.where, item.key, item.origin, item.encode()))
    record, error = item.record, item.error
    return _encode(
        _Saved(
            item.where,
            record.key if record else None,
            item.origin,
            record.encode() if record else None,
            item.text,
            item.digest,
            [error.kind, error.message, error.hint, error.where],
        )
    )


def restore(data: bytes) -> Record | BadLine:
    """What `save` was given."""
    saved = _decode(data)
    record = None
    if saved.line is not None:
        record = Record.parse(saved.line, saved.where)
        record.key, record.origin = saved.key, saved.origin
    if saved.error is None:
        assert record is not None
        return record
    kind, message, hint, where = saved.error
    error = RecordError(kind, message, hint, where=where)
    return BadLine(saved.where, saved.text, error, saved.origin, saved.digest, record)


def failed(record: Record, error: RecordError) -> BadLine:
    """A record that failed before its stage saw it, as a source would give it."""
    error.where = error.where or record.where
    return BadLine(record.where, b"", error, record.origin, record.digest, record)


class Rows:
    """What was remembered of each record, in input order: ids and bytes, on disk. Iterate as often as needed.

    width: bytes of each row where all have the same, else None.
    """

    def __init__(self) -> None:
        self._data, self._ids = scratch(), scratch()
        self._lengths, self._starts = array("I"), array("Q")
        self.width: int | None = None
        self._same = True

    def append(self, name: str, data: bytes) -> None:
        encoded = name.encode("utf-8", "surrogatepass")
        self._ids.write(_LENGTH.pack(len(encoded)) + encoded)
        self._data.write(data)
        self._lengths.append(len(data))
        if self.width is None and self._same:
            self.width = len(data)
        elif self.width != len(data):
            self.width, self._same = None, False

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        """(id, row) of each; "" for a record without an id. One iteration at a time."""
        return zip(self.ids(), self.data(), strict=True)

    @property
    def lengths(self) -> Sequence[int]:
        """The bytes of each row."""
        return self._lengths

    def ids(self) -> Iterator[str]:
        """The ids alone."""
        return (name.decode("utf-8", "surrogatepass") for name in _framed(self._ids))

    def data(self) -> Iterator[bytes]:
        """The rows alone."""
        self._data.seek(0)
        for length in self._lengths:
            yield self._data.read(length)

    def take(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """The rows of these numbers, from 0, in the order asked for; 8 bytes of memory a row the first time."""
        if len(self._starts) <= len(self._lengths):
            self._starts = array("Q", itertools.accumulate(self._lengths, initial=0))
        for number in numbers:
            self._data.seek(self._starts[number])
            yield self._data.read(self._lengths[number])

    @property
    def file(self) -> IO[bytes]:
        """The rows one after the other, without anything between: to be memory-mapped where `width` says so."""
        self._data.flush()
        return self._data

    def close(self) -> None:
        self._data.close()
        self._ids.close()


class Spool:
    """Records in input order, each with its row where it has one."""

    def __init__(self) -> None:
        self._items = scratch()
        self._has_row = bytearray()
        self.rows = Rows()

    def append(self, item: Record | BadLine, row: bytes | None) -> None:
        """Take an item at the end. Raises RecordError, and takes nothing, where an id cannot be read."""
        name = (item.id or "") if isinstance(item, Record) and row is not None else ""
        self._items.write(_frame(save(item)))
        self._has_row.append(row is not None)
        if row is not None:
            self.rows.append(name, row)

    def __len__(self) -> int:
        return len(self._has_row)

    def __iter__(self) -> Iterator[tuple[Record | BadLine, bytes | None]]:
        """The items again, and their rows."""
        rows = self.rows.data()
        for data, has_row in zip(_framed(self._items), self._has_row, strict=True):
            yield restore(data), next(rows) if has_row else None

    def close(self) -> None:
        self._items.close()
        self.rows.close()


class Ordered:
    """A source in the order of a key: reads everything first, in bounded memory, through sorted runs on disk.

    key: the bytes to sort a record by; equal keys keep the input's order. It may raise RecordError. What has no key
    (that, a bad line, a record that came with an error) follows at the end, in the input's order.
    bad_first: bad lines come at once instead: for a run that stops at the first.
    """

    def __init__(
        self,
        source: Iterable[Record | BadLine],
        key: Callable[[Record], bytes],
        *,
        bad_first: bool = False,
        chunk_bytes: int = _CHUNK,
    ) -> None:
        self._source, self._key, self._bad_first, self._chunk = source, key, bad_first, chunk_bytes
        self.total = getattr(source, "total", None)

    def __iter__(self) -> Iterator[Record | BadLine]:
        runs = _Runs()
        try:
            held: list[tuple[bytes, bytes]] = []
            size = 0
            for item in self._source:
                key, item = self._keyed(item)
                if self._bad_first and isinstance(item, BadLine):
                    yield item
                    continue
                data = save(item)
                held.append((key, data))
                size += len(key) + len(data) + 200  # what Python adds
                if size >= self._chunk:
                    runs.append(_sorted(held))
                    held, size = [], 0
            for _, data in heapq.merge(runs.merged(), _sorted(held), key=_first):
                yield restore(data)
        finally:
            runs.close()

    def _keyed(self, item: Record | BadLine) -> tuple[bytes, Record | BadLine]:
        if isinstance(item, BadLine):
            return b"\xff", item
        try:
            if item.get("error") is not None:
                return b"\xff", item
            return b"\x00" + self._key(item), item
        except RecordError as error:
            return b"\xff", failed(item, error)


class _Runs:
    """Sorted runs on disk, oldest first. So many of one size become one of the next, so that a record is rewritten
    as often as the logarithm of their number says, and few files are open.
    """

    def __init__(self) -> None:
        self._sizes: list[list[IO[bytes]]] = []  # runs of records, runs of runs, ...; those of a size are in order

    def append(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Take sorted pairs that come after all before."""
        run = _run(pairs)
        for same in self._sizes:
            same.append(run)
            if len(same) < _MERGED:
                return
            run = _run(_merged(same))
            _close(same)
        self._sizes.append([run])

    def merged(self) -> Iterator[tuple[bytes, bytes]]:
        """All pairs in order; equal keys as they came."""
        return _merged([run for same in reversed(self._sizes) for run in same])

    def close(self) -> None:
        for same in self._sizes:
            _close(same)


def _close(runs: list[IO[bytes]]) -> None:
    for run in runs:
        run.close()
    runs.clear()


def _first(pair: tuple[bytes, bytes]) -> bytes:
    return pair[0]


def _sorted(held: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    held.sort(key=_first)  # stable
    return held


def _run(pairs: Iterable[tuple[bytes, bytes]]) -> IO[bytes]:
    """Sorted pairs in a file."""
    file = scratch()
    for key, data in pairs:
        file.write(_frame(key) + _frame(data))
    return file


def _merged(runs: list[IO[bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """The pairs of sorted runs as one; equal keys in the order of the runs."""
    frames = [_framed(run) for run in runs]
    return heapq.merge(*(zip(each, each, strict=True) for each in frames), key=_first)


def _frame(data: bytes) -> bytes:
    return _LENGTH.pack(len(data)) + data


def _framed(file: IO[bytes]) -> Iterator[bytes]:
    """All frames of a file, from its start."""
    file.seek(0)
    while head := file.read(_LENGTH.size):
        yield file.read(_LENGTH.unpack(head)[0])
