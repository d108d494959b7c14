"""The field of --stratify, for stages that read everything first."""

from __future__ import annotations

from clipkit.stream.fieldnames import Sought
from clipkit.stream.hashing import ticket, value_name
from clipkit.stream.record import Record


class Strata:
    """What stratum each record is in: that of its field's value; records without the field are one."""

    def __init__(self, field: str, called: str) -> None:
        """called: what a person calls one: a stratum, a class."""
        self._field, self._called = field, called
        self._sought = Sought([field])
        self._without = 0

    def look(self, record: Record) -> None:
        """Take note of a record's fields, whether or not it is divided."""
        self._sought.look(record)

    def of(self, record: Record) -> int:
        """The stratum of a record that is divided, as 64 bits of a hash."""
        value = record.lookup(self._field)
        self._without += value is None
        return int.from_bytes(ticket(value_name(value), 0, "stratum")[:8], "big")

    def notices(self) -> list[str]:
        """What to say once all were seen. Raises UsageError if none of them had the field."""
        self._sought.check()
        said = f"records without {self._field!r} are one {self._called}: {self._without:,}"
        return [said] if self._without else []
