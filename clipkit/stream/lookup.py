"""Records on disk, to be found by a key: the side of a join that is not streamed."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable

from clipkit.errors import ClipkitError
from clipkit.stream.ids import HashTable
from clipkit.stream.record import Record
from clipkit.stream.scratch import scratch
from clipkit.stream.sources import BadLine
from clipkit.stream.spool import restore, save

_WORD = 0xFFFFFFFFFFFFFFFF
_BUFFER = 1 << 14  # what a look-up reads at once; neighbours are found in it
_LEAVE_ONE = "leave one of the two there: which is the partner?"


class Lookup:
    """All records of a source by a key of bytes. In memory: 33 to 57 bytes a record; the records lie in a file.

    key: may give None: such a record cannot be found and is only counted, like one that came with an error.
    Reading raises ClipkitError for a line that is no record and for two records of one key.

    unkeyed, failed: records left out, for want of a key and for their `error`.
    """

    def __init__(self, source: Iterable[Record | BadLine], key: Callable[[Record], bytes | None]) -> None:
        self._key = key
        self._file = scratch(_BUFFER)
        self._ends = array("Q", [0])  # where the records end in the file, by number
        self._numbers = HashTable()
        self._clashing: dict[bytes, int] = {}  # keys whose hash another key has
        self._found = bytearray()
        self.unkeyed = self.failed = 0
        try:
            for item in source:
                self._append(item)
        except BaseException:
            self.close()
            raise

    def _append(self, item: Record | BadLine) -> None:
        if isinstance(item, BadLine):
            hint = _LEAVE_ONE if item.error.kind == "duplicate-id" else item.error.hint
            raise ClipkitError(item.error.message, hint, where=item.error.where or item.where)
        if item.get("error") is not None:
            self.failed += 1
            return
        key = self._key(item)
        if key is None:
            self.unkeyed += 1
            return
        number = len(self._found)
        before = self._numbers.setdefault(hash(key) & _WORD, number)
        if before is not None:
            other = self._record(self._clashing.get(key, before))
            if key == self._key(other):
                raise ClipkitError(
                    f"{key.decode()} is also that of {other.where}",
                    _LEAVE_ONE,
                    where=item.where,
                )
            self._clashing[key] = number
        data = save(item)
        self._file.seek(self._ends[-1])
        self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))
        self._found.append(0)

    def _record(self, number: int) -> Record:
        self._file.seek(self._ends[number])
        record = restore(self._file.read(self._ends[number + 1] - self._ends[number]))
        assert isinstance(record, Record)
        return record

    def find(self, key: bytes) -> Record | None:
        """The record of a key, fresh each time."""
        number = self._clashing.get(key) if self._clashing else None
        if number is None:
            number = self._numbers.get(hash(key) & _WORD)
        if number is None:
            return None
        record = self._record(number)
        if self._key(record) != key:
            return None
        self._found[number] = 1
        return record

    def __len__(self) -> int:
        return len(self._found)

    @property
    def found(self) -> int:
        """How many of the records were found at least once."""
        return self._found.count(1)

    def close(self) -> None:
        self._file.close()
