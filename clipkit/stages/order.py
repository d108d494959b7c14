"""Records in another order: by what a field says, or by chance. `spool.Ordered` sorts them by a stage's `key`."""

from __future__ import annotations

from typing import Any, ClassVar

from clipkit.errors import UsageError
from clipkit.stages.select import Cat, parse_names
from clipkit.stream.fieldnames import Sought
from clipkit.stream.hashing import name_of, ticket
from clipkit.stream.record import Record
from clipkit.stream.sortkeys import sort_key
from clipkit.stream.stage import Outcome


class Shuffle(Cat):
    """Keeps every record; `key` puts them in the order of their tickets. config: seed."""

    verb: ClassVar[str] = "shuffle"

    def key(self, record: Record) -> bytes:
        return ticket(name_of(record), self.config["seed"], "shuffle")


class Sort(Cat):
    """Keeps every record; `key` puts them in the order of fields, then of ids.

    config: by, a list of [field, descending]. Records that lack a field come after those that have it, either way.
    """

    verb: ClassVar[str] = "sort"

    def setup(self) -> None:
        self._sought = Sought(name for name, _ in self.config["by"])

    def key(self, record: Record) -> bytes:
        self._sought.look(record)
        keys = [sort_key(record.lookup(name), descending) for name, descending in self.config["by"]]
        return b"".join(keys) + sort_key(record.id)

    def process(self, items: list[Any]) -> list[Outcome]:
        self._sought.check()  # all keys were asked for before the first record came
        return items


def parse_order(words: list[str], descending: bool) -> list[tuple[str, bool]]:
    """`A,-B` words as [(field, descending)]; a name that begins with - is descending."""
    names = parse_names(words)
    if descending and any(name.startswith("-") for name in names):
        raise UsageError("--desc and a field that begins with -", "say either: --by a,-b, or --by a,b --desc")
    order = [(name.removeprefix("-"), descending or name.startswith("-")) for name in names]
    if not order or not all(name for name, _ in order):
        raise UsageError("--by takes the names of fields", "for example: --by label,-scores.clip")
    return order
