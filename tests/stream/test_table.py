"""The table on a terminal: what is cut, what is not, and colour."""

from __future__ import annotations

import io

import pytest

from clipkit.stream.record import Record
from clipkit.stream.table import Column, TableSink, coloured, display_width

COLUMNS = (
    Column("image", 44, lambda r: r.id or ""),
    Column("label", 24, lambda r: str(r["label"])),
    Column("prob", 6, lambda r: f"{r['prob']:.3f}", right=True),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def table(width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    sink = TableSink(COLUMNS, out)
    for name in ("a.jpg", "猫" * 40 + ".jpg"):
        sink.write(Record({"id": name, "label": "a long class name, longer than that", "prob": 0.98765}).encode(), "")
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [24, 40, 60, 80, 200])
def test_numbers_are_never_cut_and_rows_fit(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = table(width, monkeypatch)
    assert [line.endswith(" 0.988") for line in lines] == [False, True, True]
    assert lines[0].endswith("  prob")
    assert max(map(display_width, lines)) <= width


@pytest.mark.parametrize(
    ("no_color", "force", "term", "expected"),
    [("", "", "xterm", True), ("", "", "dumb", False), ("", "1", "dumb", True), ("1", "1", "xterm", False)],
)
def test_colour(no_color: str, force: str, term: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("FORCE_COLOR", force)
    monkeypatch.setenv("TERM", term)
    assert coloured(Terminal()) is expected
