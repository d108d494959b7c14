"""What `concepts count` wrote, read again and put together: counts of parts add up.

Such a file has a row a concept, `{"id", "concept", "records", "text", "image", "both"}`, and last a row `*` about any
of them: in how many records the caption or the image has some concept at all (`text`, `image`, `either`), in how many
they share one (`both`), by what rules it was counted, and which part of a set it is of (`part`, of --shard). So files
can be joined with `cat`, too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from clipkit.errors import ClipkitError, RecordError, UsageError
from clipkit.stream.record import Record
from clipkit.stream.sources import SourceOptions, open_source

ANY: Final = "*"  # the id of the row about any concept; no concept is called so: it has no letter
SIDES: Final = ("text", "image", "both")
_PART: Final = re.compile(r"([1-9]\d{0,5})/([1-9]\d{0,5})")
_MOST: Final = 2**53  # records of a count: whole numbers that doubles hold


@dataclass
class Counts:
    """How often each of some concepts occurs in a set of records.

    settings: by what rules it was counted; only counts of equal settings add up. sides: of text, image and both those
    that were counted. of: concept -> its count on each of them. any: the records with any concept on each side, and
    on either. parts: which parts of sets these are of, `I/N` each; none of what is no part.
    """

    names: tuple[str, ...]
    settings: dict[str, Any]
    sides: tuple[str, ...]
    records: int = 0
    of: dict[str, dict[str, int]] = field(default_factory=dict)
    any: dict[str, int] = field(default_factory=dict)
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.of = self.of or {name: dict.fromkeys(self.sides, 0) for name in self.names}
        self.any = self.any or dict.fromkeys((*self.sides, *(("either",) if "both" in self.sides else ())), 0)

    def add(self, text: Iterable[str], image: Iterable[str]) -> None:
        """Count one more record: the concepts of its caption, and those of its image."""
        found = {"text": set(text), "image": set(image)}
        found |= {"both": found["text"] & found["image"], "either": found["text"] | found["image"]}
        self.records += 1
        for side in self.sides:
            for name in found[side]:
                self.of[name][side] += 1
        for side in self.any:
            self.any[side] += bool(found[side])

    def by(self, side: str) -> dict[str, int]:
        """Concept -> count, in the order of the concepts. side: text, image or both. Raises UsageError."""
        if side not in self.sides:
            hint = "count them with --by text,image"
            raise UsageError(f"--by {side}: these counts are of {' and '.join(self.sides)} only", hint)
        return {name: self.of[name][side] for name in self.names}

    @property
    def misaligned(self) -> float | None:
        """The share of records, of those with any concept in caption or image, whose caption and image share none."""
        either = self.any.get("either")
        return (either - self.any["both"]) / either if either else None

    @property
    def missing(self) -> list[str]:
        """The parts that are not there as often as others of as many: of each set, all N belong together."""
        found, most = Counter(self.parts), Counter[str]()
        for part, count in found.items():
            of = part.partition("/")[2]
            most[of] = max(most[of], count)
        every = ((f"{number}/{of}", count) for of, count in most.items() for number in range(1, int(of) + 1))
        return [part for part, count in every if found[part] < count]

    def rows(self) -> Iterator[Record]:
        """As records, the row of any concept last."""
        part = {"part": self.parts[0]} if len(self.parts) == 1 else {}
        for name in self.names:
            yield Record({"id": name, "concept": name, "records": self.records, **self.of[name]})
        yield Record({"id": ANY, "records": self.records, **self.any, "settings": self.settings, **part})


def read_counts(paths: Sequence[str]) -> Counts:
    """The sum of files that `concepts count` wrote; `-` is standard input.

    Raises ClipkitError for a file that is something else or incomplete, where concepts or settings differ, and for a
    part that is there twice, number for number. (The same part of another set has other numbers.)
    """
    total: Counts | None = None
    seen: set[bytes] = set()
    for path in paths:
        for part in _parts(path):
            rows = b"".join(row.encode() for row in part.rows()) if part.parts and any(part.any.values()) else b""
            if rows and rows in seen:
                raise ClipkitError(f"{path}: part {part.parts[0]} is there twice, number for number", "give it once")
            seen.add(rows)
            total = part if total is None else _sum(total, part, path)
    if total is None:
        raise ClipkitError("no counts were read", "give files that clipkit concepts count wrote")
    return total


def _parts(path: str) -> Iterator[Counts]:
    """The counts in a file: several, where files were joined."""
    rows: list[Record] = []
    for row in open_source(SourceOptions(paths=(path,), dup_ids="suffix"), note=_say_nothing):
        if not isinstance(row, Record):
            raise ClipkitError(row.error.message, row.error.hint, where=row.where)
        rows.append(row)
        if "settings" in row:
            yield _counts(rows)
            rows = []
    if rows:
        raise ClipkitError(
            f"{path}: it doesn't end with a row {ANY!r}", "give what clipkit concepts count wrote, with all its rows"
        )


def _say_nothing(message: str) -> None:
    """A note about where images are: these rows have none."""


def _counts(rows: Sequence[Record]) -> Counts:
    """Of the rows of one count, the last of which is about any concept."""
    last = rows[-1]
    said = last.get("part")
    sides = tuple(side for side in SIDES if side in last)
    try:
        of = {_text(row, "concept"): {side: _number(row, side) for side in sides} for row in rows[:-1]}
        any_ = {side: _number(last, side) for side in (*sides, *(("either",) if "both" in sides else ()))}
        records = {_number(row, "records") for row in rows}
    except RecordError as error:
        raise ClipkitError(error.message, "give what clipkit concepts count wrote", where=error.where) from None
    if len(of) < len(rows) - 1 or len(records) > 1 or not of or not (said is None or _is_part(said)):
        raise ClipkitError(
            "its rows are not those of one count", "give what clipkit concepts count wrote", where=last.where
        )
    return Counts(tuple(of), last["settings"], sides, records.pop(), of, any_, (said,) if said else ())


def _sum(total: Counts, part: Counts, path: str) -> Counts:
    if part.names != total.names:
        only = sorted(set(total.names) ^ set(part.names))
        said = f"{only[0]!r} is in one only" if only else "their order differs"
        raise ClipkitError(f"{path}: counts of another list of concepts: {said}", "count all parts with one list")
    if part.settings != total.settings or part.sides != total.sides:
        one, other = ({**counts.settings, "by": counts.sides} for counts in (total, part))
        said = ", ".join(name for name in one | other if one.get(name) != other.get(name))
        raise ClipkitError(f"{path}: counted by other rules ({said})", "count all parts with the same options")
    total.records += part.records
    total.parts += part.parts
    for name, counts in part.of.items():
        for side, count in counts.items():
            total.of[name][side] += count
    for side, count in part.any.items():
        total.any[side] += count
    return total


def _is_part(value: Any) -> bool:
    found = _PART.fullmatch(value) if isinstance(value, str) else None
    return found is not None and int(found[1]) <= int(found[2])


def _number(row: Record, name: str) -> int:
    value = row.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
        raise RecordError("bad-field", f"field {name!r} is not a count", where=row.where)
    return value


def _text(row: Record, name: str) -> str:
    value = row.get(name)
    if not isinstance(value, str):
        raise RecordError("bad-field", f"field {name!r} is not a concept's name", where=row.where)
    return value
