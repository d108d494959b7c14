"""Ids: every record gets the one it has or the one that follows from its image, and no two are equal."""

from __future__ import annotations

import os
from collections.abc import Sequence

from clipkit.errors import RecordError
from clipkit.stream.ids import SeenIds, UniqueIds
from clipkit.stream.record import Record
from clipkit.stream.sources.context import KEPT, BadLine, Input, Item, Reading, arrived_failed
from clipkit.stream.sources.places import Places

_NUMBER_BITS = 40  # of a place: the input's index above, the line in it below


class Naming:
    """The ids of one run. suffix: an id seen before becomes `ID~2`, `ID~3`, ... instead of an error."""

    def __init__(self, inputs: list[Input], places: Places, *, suffix: bool) -> None:
        self._inputs = inputs
        self._places = places
        self._suffix = suffix
        self._seen = SeenIds()
        self._unique = UniqueIds()

    def settle(self, record: Record, reading: Reading, index: int) -> tuple[str | None, Item]:
        """The id a record came with or that its image gives (None for neither), and the record with its final id.

        A record whose id was seen before comes back as a BadLine (`duplicate-id`), or renamed. Records that
        arrived with an `error` are not compared.
        """
        try:
            name = record.id
            if name is None:
                image = record.get("image")
                if not isinstance(image, str) or not image:
                    return None, record
                name = record.key = self._places.id_of(image)
            if arrived_failed(record):
                return name, record
        except RecordError as error:
            return None, _bad(record, reading, error)
        if self._suffix:
            return name, self._suffixed(record, name)
        first = self._unique.add(name, index << _NUMBER_BITS | reading.number)
        if first is None:
            return name, record
        message = f"id {name!r} is also that of {self._place(first, name)}"
        hint = "ids name records: give each its own, or use --dup-ids suffix"
        return name, _bad(record, reading, RecordError("duplicate-id", message, hint, where=record.where))

    def settle_all(self, names: Sequence[str], numbers: Sequence[int], index: int) -> bool:
        """Note the ids of many records, in normal form, at these lines of an input.

        False, with none of them noted, if one was seen before or comes twice.
        """
        first = index << _NUMBER_BITS
        return self._unique.add_all(names, [first | number for number in numbers] if first else numbers)

    def _suffixed(self, record: Record, name: str) -> Record:
        count = self._seen.add(name, 1)
        if count is None:
            return record
        count += 1
        while f"{name}~{count}" in self._seen:
            count += 1
        self._seen.put(name, count)
        record["id"] = f"{name}~{count}"
        self._seen.add(f"{name}~{count}", 1)
        return record

    def _place(self, place: int, name: str) -> str:
        """Where an id was first seen, in words."""
        item, number = self._inputs[place >> _NUMBER_BITS], place & ((1 << _NUMBER_BITS) - 1)
        if item.kind in ("image", "reference"):
            return item.shown
        if item.kind == "tar":
            return f"sample {number} of {item.shown}"
        if item.kind == "folder":
            path = os.path.join(item.path, name)
            return path if os.path.lexists(path) else f"image {number} of {item.shown}"
        return f"{item.shown}:{number}"


def _bad(record: Record, reading: Reading, error: RecordError) -> BadLine:
    error.where = error.where or record.where
    return BadLine(record.where, record.encode()[:KEPT], error, reading.origin, record.digest, record)
