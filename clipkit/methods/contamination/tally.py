"""What was found of each benchmark, counted from the records that go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clipkit.methods.contamination.references import MOST


class _Count:
    """records: that overlap. items: names of the benchmark's items that were met. cut: there may be more of these."""

    def __init__(self) -> None:
        self.records = 0
        self.items: set[str] = set()
        self.cut = False

    def add(self, names: Sequence[str], *, cut: bool) -> None:
        self.records += 1
        self.items.update(names)
        self.cut |= cut

    def facts(self) -> dict[str, Any]:
        return {"records": self.records, "items_met": len(self.items)} | ({"at_least": True} if self.cut else {})


class Tally:
    """For each benchmark, by each of its methods and by any of them. Memory: the names of the items that were met."""

    def __init__(self, methods: Mapping[str, Sequence[str]], items: Mapping[str, int]) -> None:
        """methods: benchmark -> what it is compared by. items: benchmark -> how many it has."""
        self._items = items
        self._any = {name: _Count() for name in methods}
        self._by = {name: {method: _Count() for method in by} for name, by in methods.items()}

    def add(self, hits: Sequence[Mapping[str, Any]]) -> None:
        """Count one record: the `value` of its drop."""
        met: dict[tuple[str, str], list[str]] = {}
        for hit in hits:
            met.setdefault((hit["set"], hit["by"]), []).append(hit["id"])
        for name in dict.fromkeys(name for name, _ in met):
            mine = {by: ids for (of, by), ids in met.items() if of == name}
            cut = {by for by, ids in mine.items() if len(ids) >= MOST}
            self._any[name].add([one for ids in mine.values() for one in ids], cut=bool(cut))
            for by, ids in mine.items():
                self._by[name][by].add(ids, cut=by in cut)

    def facts(self) -> dict[str, Any]:
        """As JSON, by benchmark."""
        return {
            name: {"items": self._items[name]}
            | count.facts()
            | {"by": {by: one.facts() for by, one in self._by[name].items()}}
            for name, count in self._any.items()
        }

    def lines(self) -> list[str]:
        """For people: what was met of each benchmark, and in how many records."""
        rows = []
        for name, count in self._any.items():
            if not count.records:
                rows.append((name, "any", "0", f"none of {self._items[name]:,}"))
                continue
            each = self._by[name] if len(self._by[name]) > 1 else {}
            for by, one in [*each.items(), ("any", count)]:
                rows.append((name, by, f"{one.records:,}", self._share(name, one)))
        header = ("benchmark", "by", "records", "its items that were met")
        widths = [max(len(row[column]) for row in (header, *rows)) for column in range(3)]
        lines = [
            f"  {name:<{widths[0]}}  {by:<{widths[1]}}  {records:>{widths[2]}}  {items}"
            for name, by, records, items in (header, *rows)
        ]
        return lines if any(count.records for count in self._any.values()) else ["  nothing overlapped", *lines]

    def _share(self, name: str, count: _Count) -> str:
        met, items = len(count.items), self._items[name]
        return f"{'at least ' * count.cut}{met:,} of {items:,} ({100 * met / items:.3g} %)"
