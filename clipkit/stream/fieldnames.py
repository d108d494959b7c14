"""Fields that a person named and that no record has: mistyped, most likely."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Sequence

from clipkit.errors import RecordError, UsageError
from clipkit.stream.record import Record

_LOOKED_AT = 100  # records whose names are remembered
_LISTED = 12
_MISSING = object()


def field_names(record: Record) -> list[str]:
    """The names of a record's fields, and of those in its objects, dotted."""
    names = []
    for name in record:
        names.append(name)
        with contextlib.suppress(RecordError):  # a value that cannot be decoded has a name all the same
            value = record[name] if name != "via" else None
            if isinstance(value, dict):
                names += [f"{name}.{inner}" for inner in value]
    return names


def suggestion(name: str, known: Iterable[str]) -> str | None:
    """What a mistyped field may have meant, or which fields there are."""
    names = list(known)
    last = {other.rpartition(".")[2]: other for other in reversed(names)}
    close = difflib.get_close_matches(name, names, 1) or [
        last[found] for found in difflib.get_close_matches(name.rpartition(".")[2], last, 1)
    ]
    if close:
        return f"did you mean {close[0]!r}?"
    listed = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
    return f"there are: {listed}" if listed else None


def missing_field(name: str, record: Record) -> RecordError:
    """The error of a record that lacks a field it needs."""
    return RecordError("missing-field", f"no field {name!r}", suggestion(name, field_names(record)))


def mapping_hint(names: Sequence[str], record: Record) -> str | None:
    """What a record that lacks all of `names` has instead, and the option that names it."""
    others = [other for other in record if other not in ("id", "via", "scores")][:8]
    which = "the right one" if len(names) == 1 else "them"
    option = ",".join(f"{name}=THEIRS" for name in names)
    return f"it has {', '.join(others)}; name {which} with --map {option}" if others else None


class Sought:
    """Watches records go by for fields that a person named."""

    def __init__(self, names: Iterable[str]) -> None:
        self.unseen = dict.fromkeys(names)
        self._known: dict[str, None] = {}
        self._looked = 0

    def look(self, record: Record) -> None:
        """Take note of a record's fields."""
        if not self.unseen:
            return
        self._looked += 1
        for name in list(self.unseen):
            if _has(record, name):
                del self.unseen[name]
        if self.unseen and self._looked <= _LOOKED_AT:
            self._known |= dict.fromkeys(field_names(record))

    def meant(self, name: str) -> str:
        """What to add to a word about a name that no record had and that is close to one they had; else ""."""
        said = suggestion(name, self._known) if name in self.unseen else None
        return f"; {said}" if said and said.startswith("did") else ""

    def problems(self) -> list[tuple[str, str | None]]:
        """What to say of each name that none of the records had, and a hint; nothing if there was no record."""
        said = [(f"no record has a field {name!r}", suggestion(name, self._known)) for name in self.unseen]
        return said if self._looked else []

    def check(self, where: str | None = None) -> None:
        """Raise UsageError if there were records and one of the names was in none of them. where: the source."""
        for message, hint in self.problems():
            raise UsageError(message, hint, where=where)


def _has(record: Record, name: str) -> bool:
    """Whether a field is there, if only as what cannot be decoded."""
    try:
        return record.lookup(name, _MISSING) is not _MISSING
    except RecordError:
        return True
