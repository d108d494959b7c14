"""The table on a terminal: what is cut, what is not, and colour."""

from __future__ import annotations

import io

import pytest

from clipkit.stages.select import RECORD_COLUMNS
from clipkit.stream.record import Record
from clipkit.stream.table import DROP_COLUMN, Column, TableSink, coloured, display_width

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


def lines_of(
    columns: tuple[Column, ...], records: list[dict[str, object]], width: int, mp: pytest.MonkeyPatch
) -> list[str]:
    mp.setenv("COLUMNS", str(width))
    mp.setenv("NO_COLOR", "1")
    out = Terminal()
    sink = TableSink(columns, out)
    for record in records:
        sink.write(Record(record).encode(), "")
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_numbers_without_room_are_counted_and_the_id_stays_readable(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [Column(f"score{n}", 7, lambda r: "0.1234", right=True) for n in range(20)]
    columns = (Column("id", 40, lambda r: r.id or ""), *numbers)
    head, row = lines_of(columns, [{"id": "00000042"}], width, monkeypatch)
    shown = row.count("0.1234")
    assert row.startswith("00000042 ")
    assert shown >= 4
    assert head.endswith(f"  +{20 - shown}") == (shown < 20)
    assert max(map(display_width, (head, row))) <= width


def test_a_column_that_the_first_record_lacks_is_left_out_and_its_room_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    named = "a-name-of-more-than-thirty-two-characters.jpg"
    lines = lines_of(RECORD_COLUMNS, [{"id": named}], 100, monkeypatch)
    assert lines == ["id", named]
    heads = [
        lines_of(RECORD_COLUMNS, [record], 100, monkeypatch)[0].split()
        for record in ({"id": "1", "text": "a"}, {"id": "1", "error": "x"})
    ]
    assert heads == [["id", "text"], ["id", "label", "text"]]


def test_a_mark_is_shown_with_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    drop = {"by": "filter", "reason": "scores.clip >= 0.3", "value": 0.25, "limit": 0.3}
    records: list[dict[str, object]] = [{"id": "1"}, {"id": "2", "drop": drop}, {"id": "3", "drop": "odd"}]
    records.append({"id": "4", "drop": {"reason": "bytes:test", "value": [{"set": "test", "id": "x"}]}})
    lines = lines_of((*RECORD_COLUMNS, DROP_COLUMN), records, 120, monkeypatch)
    assert [line.split(maxsplit=1) for line in lines] == [
        ["id", "drop"],
        ["1"],
        ["2", "scores.clip >= 0.3 (0.25)"],
        ["3"],
        ["4", "bytes:test"],
    ]


def test_a_record_without_an_id_is_named_by_its_image(monkeypatch: pytest.MonkeyPatch) -> None:
    records: list[dict[str, object]] = [{"image": "a/b.jpg"}, {"image": "gone.jpg", "error": "no file"}, {"image": []}]
    lines = lines_of(RECORD_COLUMNS, records, 80, monkeypatch)
    assert [line.split() for line in lines] == [["id"], ["a/b.jpg"], ["gone.jpg", "no", "file"], []]


def test_each_kind_of_record_has_a_table_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    columns = [
        Column("t", 3, lambda r: str(r["t"]), right=True, of="curve"),
        Column("note", 6, lambda r: str(r.get("note", "")), of="curve"),
        Column("entry", 6, lambda r: str(r["entry"]), of="head"),
        Column("p", 3, lambda r: str(r.get("p", "")), of="head", optional=True),
    ]
    sink = TableSink(columns, out)
    for line in (
        b'{"kind":"curve","t":1}',
        b'{"kind":"curve","t":2,"note":"chosen"}',
        b'{"kind":"head","entry":"dog"}',
        b'{"id":"x","error":{"message":"no caption"}}',
    ):
        sink.write(line, "")
    assert out.getvalue() == "  t  note\n  1\n  2  chosen\n\nentry\ndog\nx          no caption\n"
