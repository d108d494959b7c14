"""What was found of each benchmark, counted from the records that go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clipkit.methods.contamination.references import MOST


class _Count:
    """records: that overlap. met: names of items, of `of` items that the benchmark has. at_least: maybe more were."""

    def __init__(self, of: int) -> None:
        self.records = 0
        self.of = of
        self.met: set[str] = set()
        self._cut = False

    @property
    def at_least(self) -> bool:
        return self._cut and len(self.met) < self.of

    def add(self, names: Sequence[str], *, cut: bool) -> None:
        self.records += 1
        self.met.update(names)
        self._cut |= cut

    def facts(self) -> dict[str, Any]:
        said = {"records": self.records, "items_met": len(self.met)}
        return said | ({"at_least": True} if self.at_least else {})

    def share(self) -> str:
        """For people: how many items were met."""
        at_least = "at least " if self.at_least else ""
        return f"{at_least}{len(self.met):,} of {self.of:,} ({100 * len(self.met) / self.of:.3g} %)"


class Tally:
    """For each benchmark, by each of its methods and by any of them. Memory: the names of the items that were met."""

    def __init__(self, methods: Mapping[str, Sequence[str]], items: Mapping[str, int]) -> None:
        """methods: benchmark -> what it is compared by. items: benchmark -> how many it has."""
        self._any = {name: _Count(items[name]) for name in methods}
        self._by = {name: {method: _Count(items[name]) for method in by} for name, by in methods.items()}

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
            name: {"items": count.of} | count.facts() | {"by": {by: one.facts() for by, one in self._by[name].items()}}
            for name, count in self._any.items()
        }

    def lines(self) -> list[str]:
        """For people: what was met of each benchmark, and in how many records."""
        rows = []
        for name, count in self._any.items():
            by = self._by[name]
            if not count.records:
                rows.append((name, ", ".join(by), "0", f"none of {count.of:,}"))
                continue
            for method, one in [*by.items(), *([("any", count)] if len(by) > 1 else [])]:
                rows.append((name, method, f"{one.records:,}", one.share()))
        header = ("benchmark", "by", "records", "its items that were met")
        widths = [max(len(row[column]) for row in (header, *rows)) for column in range(3)]
        lines = [
            f"  {name:<{widths[0]}}  {by:<{widths[1]}}  {records:>{widths[2]}}  {items}"
            for name, by, records, items in (header, *rows)
        ]
        return lines if any(count.records for count in self._any.values()) else ["  nothing overlapped", *lines]
