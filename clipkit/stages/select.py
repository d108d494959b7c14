"""Stages that only choose records or fields: cat, head and set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import msgspec

from clipkit.errors import UsageError
from clipkit.stream.record import Record, name_taken
from clipkit.stream.rows import Columns
from clipkit.stream.selecting import HELD, Selecting
from clipkit.stream.stage import Outcome, Stage
from clipkit.stream.table import Column

_MISSING = object()

# What a terminal shows of plain records.
RECORD_COLUMNS = (
    Column("id", 32, lambda record: record.id or ""),
    Column("label", 12, lambda record: str(record.get("label") or ""), optional=True),
    Column("text", 48, lambda record: str(record.get("text") or ""), optional=True),
)


class Cat(Selecting):
    """Keeps every record as it is, byte for byte."""

    verb: ClassVar[str] = "cat"

    def process(self, items: list[Any]) -> list[Outcome]:
        return items

    def row_test(self, columns: Columns) -> Callable[[Any], int]:
        return lambda row: HELD


class Head(Cat):
    """As Cat; it is the source that ends early."""

    verb: ClassVar[str] = "head"


class Set(Stage):
    """Renames, sets, drops and keeps fields, in this order; names may be dotted (`scores.clip`).

    config: rename {old: new}; values {name: JSON value}; drop [names]; keep [names], [] for all.
    What `via` says of a field goes where the field goes: along with a rename, away when it is set or dropped.
    """

    verb: ClassVar[str] = "set"
    inline: ClassVar[bool] = True

    def setup(self) -> None:
        rename: dict[str, str] = self.config["rename"]
        self._plain = {old: new for old, new in rename.items() if "." not in old + new}
        self._dotted = {old: new for old, new in rename.items() if old not in self._plain}
        made = {*rename.values(), *self.config["values"]}
        self._unseen = {*rename, *self.config["drop"], *self.config["keep"]} - made  # in no record so far
        self._read = False

    @property
    def notices(self) -> list[str]:
        """Names that were in no record: mistyped, most likely."""
        unseen = sorted(self._unseen) if self._read else []
        return [f"no record had the field{'s' * (len(unseen) > 1)} {', '.join(map(repr, unseen))}"] if unseen else []

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._change(record) for record in items]

    def _change(self, record: Record) -> Record:
        self._read = True
        if self._unseen:
            self._unseen = {name for name in self._unseen if record.lookup(name, _MISSING) is _MISSING}
        record.rename(self._plain)
        for old, new in self._plain.items():
            _move_via(record, old, new)
        for old, new in self._dotted.items():
            _rename_dotted(record, old, new)
        for name, value in self.config["values"].items():
            record.put(name, value)
            _move_via(record, name, None)
        for name in self.config["drop"]:
            if record.discard(name):
                _move_via(record, name, None)
        if self.config["keep"]:
            _project(record, self.config["keep"])
        return record


def parse_values(words: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` words as {name: value}: a value that reads as JSON is that JSON, any other is a string."""
    values: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not name or not equals:
            raise UsageError(f"--value takes NAME=VALUE, not {word!r}", "for example: --value label=cat")
        if name.count(".") > 1:
            raise UsageError(f"--value {name}: a name has one dot at most", "set the whole object, as JSON")
        try:
            values[name] = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeError):
            values[name] = text
    return values


def parse_renames(words: list[str]) -> dict[str, str]:
    """`NEW=OLD,...` words as {old: new}, in the order of `--map`."""
    renames: dict[str, str] = {}
    for pair in parse_names(words):
        new, _, old = pair.partition("=")
        if not new or not old:
            raise UsageError(f"--rename takes NEW=OLD, not {pair!r}", "for example: --rename text=caption")
        if old in renames or new in renames.values():
            raise UsageError(f"--rename names {old if old in renames else new!r} twice")
        renames[old] = new
    return renames


def parse_names(words: list[str]) -> list[str]:
    """`A,B` words as one list of names."""
    return [name.strip() for word in words for name in word.split(",") if name.strip()]


def _rename_dotted(record: Record, old: str, new: str) -> None:
    value = record.lookup(old, _MISSING)
    if value is _MISSING:
        return
    if record.lookup(new, _MISSING) is not _MISSING:
        raise name_taken(old, new, record.where)
    record.put(new, value)
    record.discard(old)
    _move_via(record, old, new)


def _move_via(record: Record, old: str, new: str | None) -> None:
    """Rename or forget the `via` entries of a field and of the fields in it."""
    via = record.get("via")
    if not isinstance(via, dict):
        return
    inside = old + "."
    moved = {}
    for name, maker in via.items():
        if name == old or name.startswith(inside):
            if new is not None:
                moved[new + name[len(old) :]] = maker
        else:
            moved[name] = maker
    if moved == via:
        return
    if moved:
        record["via"] = moved
    else:
        del record["via"]


def _project(record: Record, names: list[str]) -> None:
    """Leave only these fields, in the record's own order; of an object of which only parts are named, those parts."""
    whole = {name for name in names if name in record or "." not in name}
    parts: dict[str, set[str]] = {}
    for name in names:
        head, dot, rest = name.partition(".")
        if dot and name not in record:
            parts.setdefault(head, set()).add(rest)
    for field in list(record):
        if field in whole:
            continue
        value = record[field] if field in parts else None
        if not isinstance(value, dict) or not parts[field] & value.keys():
            del record[field]
            continue
        for inner in value.keys() - parts[field]:
            record.discard(f"{field}.{inner}")
