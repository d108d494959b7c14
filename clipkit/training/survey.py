"""What a run is about to learn from, looked at once before it begins: a slip is dearer when hours have gone by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from clipkit.errors import UsageError
from clipkit.stream.captions import source_of
from clipkit.stream.spool import Rows
from clipkit.training.examples import Row, rows_of
from clipkit.training.texts import named

if TYPE_CHECKING:
    from clipkit.methods.losses.base import Loss

_MOST: Final = 5000  # sources that are remembered
_SHOWN: Final = 10  # of them, where they are named


@dataclass
class Survey:
    """Of the examples of records; those of shards are not known before they are read.

    sources: who wrote their captions, some thousands at most. more: whether one has a second caption to show.
    negative: whether one has a caption that is not true.
    """

    weights: Mapping[str, float]
    prefixes: Mapping[str, str]
    sources: set[str] = field(default_factory=set)
    more: bool = False
    negative: bool = False

    def __post_init__(self) -> None:
        drawn = {name for name, weight in self.weights.items() if weight}
        self._missing = {"--texts": drawn, "--prefix": set(self.prefixes)}

    def look(self, rows: Rows) -> None:
        """Raises UsageError for names of sources that no caption has: a typo, most likely."""
        for row in rows_of(rows):
            for caption in row.captions:
                if (source := source_of(caption)) not in self.sources:
                    self._found(source)
            self.more = self.more or self._to_show(row) > 1
            self.negative = self.negative or bool(row.negatives)
        for flag, names in self._missing.items():
            if names:
                name = min(names)
                raise UsageError(f"{flag} {name}: no record has a caption of that source", self._hint(name))

    def notices(self, loss: Loss, captions: int) -> list[str]:
        """What a loss, which is shown so many captions of an example, will look for in vain."""
        found: list[str] = []
        if captions > 1 and not self.more:
            found.append(f"no picture has more than one caption to show: {loss.name} will learn from one of each")
        if loss.negatives and not self.negative:
            found.append(f"no picture has a caption marked negative: {loss.name} will learn from true ones alone")
        return found

    def _found(self, source: str) -> None:
        if len(self.sources) < _MOST:
            self.sources.add(source)
        for names in self._missing.values():
            names -= {name for name in names if source == name or source.startswith(f"{name}/")}

    def _to_show(self, row: Row) -> int:
        if not self.weights or len(row.captions) < 2:
            return len(row.captions)
        names = (named(caption, self.weights) for caption in row.captions)
        return sum(name is not None and self.weights[name] > 0 for name in names)

    def _hint(self, name: str) -> str:
        heads = sorted({source.partition("/")[0] for source in self.sources} - {""})
        there = ", ".join(heads[:_SHOWN]) + (", ..." if len(heads) > _SHOWN else "")
        close = get_close_matches(name, sorted({*heads, *self.sources} - {""}), 1)
        return f"did you mean {close[0]}? there are: {there}" if close else f"there are: {there}"


def shared(rows: Rows, measured: Rows) -> int:
    """How many ids of `rows` are among those of `measured`; 8 bytes of each of the latter are in memory."""
    known = set(_hashes(measured.ids()))
    return sum(one in known for one in _hashes(rows.ids())) if known else 0


def _hashes(names: Iterable[str]) -> Iterable[bytes]:
    return (blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest() for name in names if name)
