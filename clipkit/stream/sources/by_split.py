"""Several sources as one, where each says what its records are for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from clipkit.errors import RecordError
from clipkit.stream.record import Record
from clipkit.stream.sources.context import BadLine, Item, arrived_failed


class SourcesBySplit:
    """Iterate once. parts: each with the `split` that its records get; None leaves theirs."""

    def __init__(self, parts: Sequence[tuple[str | None, Iterable[Item]]]) -> None:
        self._parts = parts

    @property
    def total(self) -> int | None:
        """How many items there will be, where all of them know."""
        totals: list[int | None] = [getattr(source, "total", None) for _, source in self._parts]
        return None if None in totals else sum(total or 0 for total in totals)

    def __iter__(self) -> Iterator[Item]:
        for split, source in self._parts:
            for item in source:
                if split and not isinstance(item, BadLine):
                    _assign(item, split)
                yield item


def _assign(record: Record, split: str) -> None:
    try:
        if not arrived_failed(record):
            record["split"] = split
    except RecordError:  # an error that cannot be read: who reads it will say so
        pass
