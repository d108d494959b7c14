"""What is in records: fields, types, values, quantiles; in memory that doesn't grow with the number of records.

Held are up to 100,000 values of each field of texts, a million in all, and, in a temporary file, 8 bytes for each
number; when a field is summed up, its numbers are sorted in memory, one field at a time.
"""

from __future__ import annotations

import heapq
import math
import sys
from array import array
from collections import Counter
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from clipkit.errors import RecordError
from clipkit.stream.fieldnames import Sought
from clipkit.stream.hashing import ticket
from clipkit.stream.record import Record
from clipkit.stream.scratch import scratch
from clipkit.stream.sources import BadLine

if TYPE_CHECKING:
    import numpy as np

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
BINS = 20
TOP = 10
_MOST_VALUES = 100_000  # distinct texts of a field that are told apart
_MOST_IN_ALL = 1_000_000
_MOST_FIELDS = 500
_LONG = 200  # a longer text is remembered by its beginning and a digest
_LARGEST = sys.float_info.max
_HELD = 1 << 16  # numbers of a field before they go to a file
_ASIDE = ("error", "drop", "via")  # told of the records, not as fields


class Numbers:
    """The numbers of one field, as doubles. min and max: exact, as they came; None where there are none."""

    def __init__(self) -> None:
        self._held = array("d")
        self._file: IO[bytes] | None = None
        self.min: int | float | None = None
        self.max: int | float | None = None

    def add(self, value: int | float) -> None:
        self.min = value if self.min is None or value < self.min else self.min
        self.max = value if self.max is None or value > self.max else self.max
        try:
            self._held.append(value)
        except OverflowError:  # a whole number beyond all doubles
            self._held.append(_LARGEST if value > 0 else -_LARGEST)
        if len(self._held) == _HELD:
            self._file = self._file or scratch(1 << 13)
            self._held.tofile(self._file)
            del self._held[:]

    def _sorted(self) -> np.ndarray:
        """All of them, f64, ascending."""
        import numpy as np

        held = np.array(self._held, np.float64)
        if self._file:
            self._file.seek(0)
            held = np.concatenate((np.fromfile(self._file), held))
        held.sort()
        return held

    def close(self) -> None:
        if self._file:
            self._file.close()

    def summary(self) -> dict[str, Any]:
        """How many values differ, min, max, percentiles (linear between neighbours), mean, standard deviation (of the
        population), a histogram.

        The histogram has 20 bins from the 1st to the 99th percentile; what lies outside counts in the first and last.
        """
        import numpy as np

        column = self._sorted()
        low, *_, high = quantiles = [_quantile(column, percent / 100) for percent in PERCENTILES]
        counts = (
            np.histogram(column.clip(low, high), BINS, (low, high))[0].tolist()
            if 0 < high - low < math.inf
            else [len(column)]
        )
        mean = _sum(column) / len(column)
        with np.errstate(all="ignore"):  # what overflows is told as null
            variance = _sum((column - mean) ** 2) / len(column)
        return {
            "distinct": int((column[1:] != column[:-1]).sum()) + 1,
            "min": self.min,
            **{f"p{percent}": value for percent, value in zip(PERCENTILES, quantiles, strict=True)},
            "max": self.max,
            "mean": _finite(mean),
            "std": _finite(math.sqrt(variance)),
            "histogram": {"from": low, "to": high, "counts": counts},
        }


def _quantile(column: np.ndarray, part: float) -> float:
    place = part * (len(column) - 1)
    below = int(place)
    low, high = float(column[below]), float(column[min(below + 1, len(column) - 1)])
    return low + (high - low) * (place - below) if math.isfinite(high - low) else low


def _sum(column: np.ndarray) -> float:
    """The exactly rounded sum, so the same on any machine; infinite where it is out of range."""
    try:
        return math.fsum(value for start in range(0, len(column), _HELD) for value in column[start:][:_HELD].tolist())
    except OverflowError:
        return math.inf


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


class _Room:
    """How many more values there is room for, in all fields."""

    def __init__(self) -> None:
        self.left = _MOST_IN_ALL


class Field:
    """What one field holds. `values` counts texts and truth values: exactly for those it holds."""

    def __init__(self, room: _Room) -> None:
        self._room = room
        self.types: Counter[str] = Counter()
        self.values: Counter[Any] = Counter()
        self.all_held = True  # no value came that there was no room for
        self.numbers = Numbers()

    def add(self, value: Any) -> None:
        """Take a value other than null."""
        if isinstance(value, bool):
            self.types["bool"] += 1
            self._count(value)
        elif isinstance(value, int | float):
            self.types["number"] += 1
            self.numbers.add(value)
        elif isinstance(value, str):
            self.types["text"] += 1
            self._count(value)
        elif isinstance(value, list):
            self.types["list"] += 1
            for inner in value:
                if isinstance(inner, str):
                    self._count(inner)
        else:
            self.types["object"] += 1

    def _count(self, value: str | bool) -> None:
        if isinstance(value, str) and len(value) > _LONG:
            value = f"{value[:_LONG]}… #{ticket(value, 0, 'stats').hex()[:8]}"
        if value in self.values:
            self.values[value] += 1
        elif len(self.values) < _MOST_VALUES and self._room.left:
            self.values[value] = 1
            self._room.left -= 1
        else:
            self.all_held = False

    def summary(self, records: int) -> dict[str, Any]:
        """Of `records`: how many have it, of what types, how many different values (at least, unless exact), which."""
        count = self.types.total()
        told: dict[str, Any] = {"count": count, "missing": records - count, "types": dict(self.types.most_common())}
        distinct = len(self.values)
        numbers = self.numbers.summary() if self.types["number"] else None
        if self.values or numbers:
            told |= {"distinct": distinct + (numbers or {}).get("distinct", 0), "distinct_exact": self.all_held}
        if numbers:
            told["numbers"] = numbers
        ranked = heapq.nsmallest(TOP, self.values.items(), key=lambda pair: (-pair[1], str(pair[0])))
        if ranked and (ranked[0][1] > 1 or len(self.values) <= TOP):
            told["top"] = [list(pair) for pair in ranked]
        return told


class Stats:
    """Sums up the items of a source. only: names of fields, [] for all; a name stands for the fields in it, too."""

    def __init__(self, only: Sequence[str] = ()) -> None:
        self._only = frozenset(only)
        self._sought = Sought(only)
        self._room = _Room()
        self.records = 0
        self.unreadable: Counter[str] = Counter()  # by kind
        self.errors: Counter[str] = Counter()  # by type; their fields are not summed up
        self.drops: Counter[str] = Counter()  # by reason
        self.fields: dict[str, Field] = {}
        self.left_out = False  # there were more fields than are told apart

    def add(self, item: Record | BadLine) -> None:
        """Take a record, or count what is none."""
        if isinstance(item, BadLine):
            self.unreadable[item.error.kind] += 1
            return
        try:
            values = item.to_dict()
        except RecordError as error:
            self.unreadable[error.kind] += 1
            return
        self.records += 1
        failure, drop = values.get("error"), values.get("drop")
        if failure is not None:
            self.errors[_named(failure, "type")] += 1
            return
        self._sought.look(item)
        if drop is not None:
            self.drops[_named(drop, "reason")] += 1
        for name, value in values.items():
            if isinstance(value, dict) and value:
                for inner, deeper in value.items():
                    self._add(f"{name}.{inner}", name, deeper)
            else:
                self._add(name, name, value)

    def _add(self, name: str, head: str, value: Any) -> None:
        if value is None or (name not in self._only and head not in self._only if self._only else head in _ASIDE):
            return
        field = self.fields.get(name)
        if field is None:
            if len(self.fields) >= _MOST_FIELDS:
                self.left_out = True
                return
            field = self.fields[name] = Field(self._room)
        field.add(value)

    def notices(self) -> list[str]:
        """What a person should know of the summary: names that were mistyped, most likely; fields left out."""
        said = [f"{message}; {hint}" if hint else message for message, hint in self._sought.problems()]
        return said + ([f"more than {_MOST_FIELDS} fields: the others are left out"] if self.left_out else [])

    def summary(self) -> dict[str, Any]:
        """All of it, as JSON.

        records: how many could be read. unreadable, errors, drops: {kind: count}. fields: name -> what `Field.summary`
        says of it among the records without an error; `Numbers.summary` says what is in its `numbers`.
        """
        told = self.records - self.errors.total()
        return {
            "records": self.records,
            "unreadable": dict(self.unreadable.most_common()),
            "errors": dict(self.errors.most_common()),
            "drops": dict(self.drops.most_common()),
            "fields": {name: field.summary(told) for name, field in self.fields.items()},
        }

    def close(self) -> None:
        for field in self.fields.values():
            field.numbers.close()


def _named(value: Any, name: str) -> str:
    """What an `error` or `drop` is counted as."""
    return str(value.get(name)) if isinstance(value, dict) else str(value)
