"""What `Stats` found, as text for people."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from clipkit.stream.stats import BINS
from clipkit.stream.table import display_width, fit
from clipkit.terminal import printable

_BLOCKS = "▁▂▃▄▅▆▇█"
_ASCII = ".:-=+*%#"
_SHOWN = ("min", "p5", "p25", "p50", "p75", "p95", "max", "mean")
_NAME = 32  # cells of a field's name, at most
_GAP = "  "
_LARGEST = sys.float_info.max


def lines_of(summary: dict[str, Any], encoding: str) -> Iterator[str]:
    """The lines of a summary, as wide as the terminal (COLUMNS wins). encoding: of the stream they go to."""
    blocks = _BLOCKS if _can_show(_BLOCKS, encoding) else _ASCII
    for line in _lines(summary, blocks):
        yield (
            line.replace("…", "..").encode(encoding, "backslashreplace").decode(encoding) if blocks is _ASCII else line
        )


def _lines(summary: dict[str, Any], blocks: str) -> Iterator[str]:
    yield from _heading(summary)
    fields = summary["fields"]
    width = shutil.get_terminal_size((100, 24)).columns
    if fields:
        rows = [[name, _types(field), *_counts(field), _top(field)] for name, field in fields.items()]
        yield ""
        yield from _grid(
            ["field", "type", "count", "missing", "distinct", "most frequent"], rows, width, lefts=(0, 1, 5)
        )
    numbers = {name: field["numbers"] for name, field in fields.items() if "numbers" in field}
    if numbers:
        rows = [[name, *(_short(found[part]) for part in _SHOWN), ""] for name, found in numbers.items()]
        heads = ["numbers", *_SHOWN, "p1-p99"]
        room = width - sum(_widths([heads, *rows])[:-1]) - len(_GAP) * (len(heads) - 1)
        for row, found in zip(rows, numbers.values(), strict=True):
            row[-1] = histogram(found["histogram"]["counts"], blocks, room)
        yield ""
        yield from _grid(heads, rows, width, lefts=(0, len(_SHOWN) + 1))


def histogram(counts: Sequence[int], blocks: str, room: int = BINS) -> str:
    """Counts as a row of characters: blank for none, the lowest for few, the highest for the most.

    Neighbours are added up where there is no room for all: 20, 10 or 5 characters.
    """
    if len(counts) == 1:  # one value only
        return blocks[-1]
    bars = next((bars for bars in (BINS, BINS // 2) if bars <= room), BINS // 4)
    step = len(counts) // bars
    counts = [sum(counts[start : start + step]) for start in range(0, len(counts), step)]
    most = max(counts)
    return "".join(blocks[-(-count * len(blocks) // most) - 1] if count else " " for count in counts)


def _heading(summary: dict[str, Any]) -> Iterator[str]:
    yield f"{summary['records']:,} {'record' if summary['records'] == 1 else 'records'}"
    for name, what in (
        ("unreadable", "could not be read"),
        ("errors", "with an error"),
        ("drops", "marked as dropped"),
    ):
        if counts := summary[name]:
            listed = ", ".join(f"{printable(kind)} {count:,}" for kind, count in list(counts.items())[:8])
            yield f"{sum(counts.values()):,} {what}: {listed}{', ...' if len(counts) > 8 else ''}"


def _types(field: dict[str, Any]) -> str:
    return ", ".join(field["types"])


def _counts(field: dict[str, Any]) -> list[str]:
    distinct = f"{'' if field['distinct_exact'] else '>= '}{field['distinct']:,}" if "distinct" in field else ""
    return [f"{field['count']:,}", f"{field['missing']:,}", distinct]


def _top(field: dict[str, Any]) -> str:
    return ", ".join(
        f"{str(value).lower() if isinstance(value, bool) else printable(fit(value, 24).rstrip())} {count:,}"
        for value, count in field.get("top", [])[:5]
    )


def _short(value: int | float | None) -> str:
    """A number in a few cells: whole ones as they are, others with four digits, or all before the point."""
    if value is None:
        return ""
    if value == int(value) and abs(value) < 10_000_000:
        return str(int(value))
    if 1000 <= abs(value) < 10_000_000:
        return f"{value:.0f}"
    return f"{float(min(max(value, -_LARGEST), _LARGEST)):.4g}"


def _can_show(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _grid(heads: list[str], rows: list[list[str]], width: int, lefts: Sequence[int]) -> Iterator[str]:
    """Rows under their heads. Names are cut at 32 cells, the last column where the line ends; numbers never are."""
    table = [heads, *rows]
    widths = _widths(table)
    widths[-1] = max(8, min(widths[-1], width - sum(widths[:-1]) - len(_GAP) * (len(heads) - 1)))
    for row in table:
        cells = (fit(cell, widths[i], right=i not in lefts) for i, cell in enumerate(row))
        yield _GAP.join(cells).rstrip()


def _widths(table: list[list[str]]) -> list[int]:
    """Of each column, in cells."""
    widths = [max(display_width(printable(row[column])) for row in table) for column in range(len(table[0]))]
    return [min(widths[0], _NAME), *widths[1:]]
