"""Records as rows on a terminal, printed as they come; and how wide a text is there."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TextIO

from clipkit.errors import ClipkitError
from clipkit.stream.record import Record
from clipkit.stream.sink import FileSink, Sink, StdoutSink
from clipkit.terminal import printable

_LEAST = 8  # cells of a text that are worth showing
_KEPT = 3  # columns that are shown however narrow the terminal is


@dataclass(frozen=True)
class Column:
    """One column: its head, its share of the width, and the text it shows of a record.

    right: a column of numbers, which stand at the right and are never cut: `0.9…` would be another number.
    optional: left out of a table whose first record has nothing there.
    of: only for records of this `kind`, which have a table of their own.
    """

    head: str
    width: int
    show: Callable[[Record], str]
    right: bool = False
    optional: bool = False
    of: str = ""


def _dropped(record: Record) -> str:
    drop = record.get("drop")
    if not isinstance(drop, dict):
        return ""
    value = drop.get("value")
    told = isinstance(value, str | int | float)  # lists and objects are for programs
    return f"{drop.get('reason')}" + (f" ({value})" if told else "")


DROP_COLUMN = Column("drop", 32, _dropped)  # why a verb run with --mark would have dropped a record


def coloured(stream: TextIO) -> bool:
    """Whether to colour: NO_COLOR and FORCE_COLOR first, then whether someone looks, on a terminal that can."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (stream.isatty() and os.environ.get("TERM") != "dumb")


def display_width(text: str) -> int:
    """Cells that a text takes: wide East Asian characters two, combining marks none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def fit(text: str, width: int, right: bool = False) -> str:
    """A text cut or padded to so many cells."""
    text = printable(text)
    if display_width(text) > width:
        while display_width(text) > width - 1:
            text = text[:-1]
        text += "…"
    gap = " " * (width - display_width(text))
    return gap + text if right else text + gap


class TableSink:
    """A table whose rows appear at once; columns share the terminal's width (COLUMNS wins).

    Where columns are of kinds of records, each kind that comes begins another table.

    Where there are more numbers than room, the last columns are left out, and the head says how many.
    """

    def __init__(self, columns: Sequence[Column], stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._candidates = columns
        self._columns: list[tuple[Column, int]] = []  # with their widths, once a record is there
        self._kinds, self._kind = any(column.of for column in columns), None

    def write(self, line: bytes, origin: str) -> None:
        record = Record.parse(line)
        image = record.get("image")
        record.key = image if isinstance(image, str) else None  # what names a record without an id
        error = record.get("error")
        if not self._columns or (self._kinds and not error and record.get("kind") != self._kind):
            self._start(record)
        if error:
            name = fit(record.id or "", self._columns[0][1])
            said = error.get("message", "failed") if isinstance(error, dict) else error
            text = printable(f"{name}  {said}".rstrip())
            self._stream.write((f"\x1b[31m{text}\x1b[0m" if coloured(self._stream) else text) + "\n")
            return
        cells = (fit(c.show(record), w, c.right) for c, w in self._columns)
        self._stream.write("  ".join(cells).rstrip() + "\n")

    def _start(self, record: Record) -> None:
        """Choose the columns, and write their heads."""
        if self._columns:
            self._stream.write("\n")
        self._kind, failed = record.get("kind"), bool(record.get("error"))
        candidates = [c for c in self._candidates if failed or c.of in ("", self._kind)]
        columns = [c for c in candidates if failed or not c.optional or c.show(record)]
        unused = sum(c.width for c in candidates) - sum(c.width for c in columns)
        if unused and not columns[-1].right:
            columns[-1] = replace(columns[-1], width=columns[-1].width + unused)
        self._columns = _laid_out(columns, shutil.get_terminal_size((100, 24)).columns)
        heads = "  ".join(fit(c.head, w, c.right) for c, w in self._columns)
        heads = (heads + _left_out(len(columns) - len(self._columns))).rstrip()
        self._stream.write((f"\x1b[1m{heads}\x1b[0m" if coloured(self._stream) else heads) + "\n")

    def flush(self) -> None:
        self._stream.flush()

    commit = flush
    abort = flush


def main_output(out: str | None, columns: Sequence[Column], *, dropped: bool) -> Sink:
    """Where records go: a file, a table on a terminal where there are columns, else standard output.

    dropped: the table says why a record would go. Raises ClipkitError where that is closed.
    """
    if out and out != "-":
        return FileSink(out)
    if sys.stdout is None:
        raise ClipkitError("standard output is closed", "name a file with -o")
    if columns and sys.stdout.isatty():
        return TableSink((*columns, DROP_COLUMN) if dropped else columns)
    return StdoutSink()


def _laid_out(columns: Sequence[Column], terminal: int) -> list[tuple[Column, int]]:
    """The columns that fit, from the first, and their widths."""
    taken = list(columns)
    while True:
        room = terminal - 2 * (len(taken) - 1) - len(_left_out(len(columns) - len(taken)))
        room -= sum(column.width for column in taken if column.right)
        texts = [column for column in taken if not column.right]
        if len(taken) <= _KEPT or room >= sum(max(len(text.head), min(text.width, _LEAST)) for text in texts):
            break
        taken.pop()
    scale = min(1.0, max(0, room) / max(1, sum(text.width for text in texts)))
    return [(c, c.width if c.right else max(len(c.head), int(c.width * scale))) for c in taken]


def _left_out(count: int) -> str:
    return f"  +{count}" if count else ""
