"""Records as rows on a terminal, printed as they come; and how wide a text is there."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

from clipkit.stream.record import Record
from clipkit.terminal import printable


@dataclass(frozen=True)
class Column:
    """One column: its head, its share of the width, and the text it shows of a record.

    right: a column of numbers, which stand at the right and are never cut: `0.9…` would be another number.
    """

    head: str
    width: int
    show: Callable[[Record], str]
    right: bool = False


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
    """A table whose rows appear at once; columns share the terminal's width (COLUMNS wins)."""

    def __init__(self, columns: Sequence[Column], stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        room = shutil.get_terminal_size((100, 24)).columns - 2 * (len(columns) - 1)
        room -= sum(column.width for column in columns if column.right)
        total = sum(column.width for column in columns if not column.right)
        scale = min(1.0, max(0, room) / max(1, total))
        self._columns = [
            (column, column.width if column.right else max(len(column.head), int(column.width * scale)))
            for column in columns
        ]
        self._headed = False

    def write(self, line: bytes, origin: str) -> None:
        if not self._headed:
            heads = "  ".join(fit(c.head, w, c.right) for c, w in self._columns).rstrip()
            self._stream.write((f"\x1b[1m{heads}\x1b[0m" if coloured(self._stream) else heads) + "\n")
            self._headed = True
        record = Record.parse(line)
        error = record.get("error")
        if error:
            name = fit(record.id or "", self._columns[0][1])
            said = error.get("message", "failed") if isinstance(error, dict) else error
            text = printable(f"{name}  {said}".rstrip())
            self._stream.write((f"\x1b[31m{text}\x1b[0m" if coloured(self._stream) else text) + "\n")
            return
        cells = (fit(c.show(record), w, c.right) for c, w in self._columns)
        self._stream.write("  ".join(cells).rstrip() + "\n")

    def flush(self) -> None:
        self._stream.flush()

    commit = flush
    abort = flush
