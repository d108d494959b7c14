"""Records on disk: what goes in comes out, rows beside them, and any order by a key, in pieces of any size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.errors import RecordError
from clipkit.stream import spool
from clipkit.stream.record import Record
from clipkit.stream.sources import BadLine, SourceOptions, open_source
from clipkit.stream.spool import Ordered, Rows, Spool, restore, save


def record(line: str, where: str = "f:1") -> Record:
    return Record.parse(line.encode(), where)


def numbered(values: list[int]) -> list[Record]:
    return [record(json.dumps({"id": f"r{i}", "v": value}), f"f:{i}") for i, value in enumerate(values)]


def by_value(item: Record) -> bytes:
    if item["v"] < 0:
        raise RecordError("negative", f"{item['v']} is below 0")
    return int(item["v"]).to_bytes(8, "big")


def ids(items: Iterator[Record | BadLine] | Ordered) -> list[str]:
    return [str((item if isinstance(item, Record) else item.record or Record({"id": "?"})).id) for item in items]


def test_a_record_comes_back_with_its_bytes_and_where_it_is_from() -> None:
    given = record('{ "id":"\\u00e9", "n":1.10 , "big":123456789012345678901234567890}')
    given.key, given.origin = "k", "shard.tar"
    back = restore(save(given))
    assert isinstance(back, Record)
    assert back.encode() == given.encode() and back.line == given.line
    assert (back.where, back.key, back.origin, back.id, back.digest) == ("f:1", "k", "shard.tar", "é", given.digest)


def test_a_record_without_an_id_of_its_own_keeps_the_derived_one() -> None:
    made = Record({"image": "a/b.jpg"}, where="a", key="b.jpg")
    back = restore(save(made))
    assert isinstance(back, Record) and back.id == "b.jpg" and back.to_dict() == {"image": "a/b.jpg"}


def test_a_bad_line_comes_back_with_its_error(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"id":"a"}\n{"id": \xff\n{"id":"a","again":1}\n')
    for item in open_source(SourceOptions((str(path),))):
        back = restore(save(item))
        assert type(back) is type(item) and back.where == item.where and back.origin == item.origin
        assert back.digest == item.digest
        if isinstance(item, BadLine):
            assert isinstance(back, BadLine)
            assert (str(back.error), back.error.kind, back.error.hint) == (
                str(item.error),
                item.error.kind,
                item.error.hint,
            )
            assert back.text == item.text
            assert (back.record and back.record.encode()) == (item.record and item.record.encode())


@pytest.mark.parametrize(
    ("data", "width"), [([b"ab", b"cd"], 2), ([b"", b""], 0), ([b"a", b"bc", b"d"], None), ([], None)]
)
def test_rows_have_a_width_where_all_have_the_same(data: list[bytes], width: int | None) -> None:
    rows = Rows()
    for number, each in enumerate(data):
        rows.append(f"é{number}", each)
    assert rows.width == width and len(rows) == len(data)
    for _ in range(2):  # as often as needed
        assert list(rows) == [(f"é{number}", each) for number, each in enumerate(data)]
    rows.file.seek(0)
    assert rows.file.read() == b"".join(data)
    rows.close()


def test_rows_belong_to_the_records_that_have_one() -> None:
    held = Spool()
    given = numbered([5, 6, 7])
    bad = BadLine("f:9", b"{", RecordError("bad-json", "not JSON"), "f", b"d" * 16)
    for item, row in zip([given[0], bad, given[1], given[2]], [b"a", None, None, b"c"], strict=True):
        held.append(item, row)
    assert len(held) == 4 and list(held.rows) == [("r0", b"a"), ("r2", b"c")]
    for _ in range(2):
        seen = list(held)
        assert [row for _, row in seen] == [b"a", None, None, b"c"]
        assert [item.where for item, _ in seen] == ["f:0", "f:9", "f:1", "f:2"]
    held.close()


def test_a_record_whose_id_cannot_be_read_is_not_half_taken() -> None:
    held = Spool()
    with pytest.raises(RecordError):
        held.append(record('{"id":1e999}'), b"row")
    held.append(record('{"id":"b"}'), b"row")
    assert [row for _, row in held] == [b"row"] and list(held.rows) == [("b", b"row")]
    held.close()


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.integers(-2, 9), max_size=80), chunk=st.sampled_from([1, 700, 1500, 1 << 20]))
def test_ordered_is_sorted_and_stable_whatever_fits_in_memory(values: list[int], chunk: int) -> None:
    given = numbered(values)
    expected = [f"r{i}" for i, _ in sorted(enumerate(values), key=lambda pair: pair[1] if pair[1] >= 0 else 99)]
    assert ids(Ordered(given, by_value, chunk_bytes=chunk)) == expected


@pytest.mark.parametrize("merged", [2, 3, 64])
def test_many_runs_are_merged_in_steps_with_few_files_open(monkeypatch: pytest.MonkeyPatch, merged: int) -> None:
    monkeypatch.setattr(spool, "_MERGED", merged)
    opened: list[object] = []
    make = spool.scratch
    monkeypatch.setattr(spool, "scratch", lambda: opened.append(made := make()) or made)
    values = [(i * 7919) % 13 for i in range(300)]
    most = 0

    def counted() -> Iterator[Record]:
        nonlocal most
        for item in numbered(values):
            yield item
            most = max(most, sum(not file.closed for file in opened))  # type: ignore[attr-defined]

    items = list(Ordered(counted(), by_value, chunk_bytes=1))  # a run a record
    assert ids(iter(items)) == [f"r{i}" for i in sorted(range(300), key=values.__getitem__)]
    assert len(opened) > 300 and all(file.closed for file in opened)  # type: ignore[attr-defined]
    levels = next(n for n in range(1, 20) if merged**n > 300)
    assert most <= merged * levels


def test_what_has_no_key_follows_at_the_end_as_it_came() -> None:
    passed = record('{"id":"p","v":0,"error":{"verb":"x","type":"y","message":"z"}}', "f:8")
    bad = BadLine("f:9", b"{", RecordError("bad-json", "not JSON"), "f", b"d" * 16)
    negative, *rest = numbered([-1, 3, 1])
    out = list(Ordered([negative, passed, rest[0], bad, rest[1]], by_value, chunk_bytes=1))
    assert [item.where for item in out] == ["f:2", "f:1", "f:0", "f:8", "f:9"]
    assert isinstance(out[2], BadLine) and out[2].error.kind == "negative" and out[2].record is not None
    assert isinstance(out[3], Record) and out[3].encode() == passed.encode()


def test_what_is_bad_comes_at_once_where_the_first_stops_the_run() -> None:
    read: list[int] = []

    def items() -> Iterator[Record]:
        for item in numbered([3, -1, 2]):
            read.append(item["v"])
            yield item

    out = iter(Ordered(items(), by_value, bad_first=True))
    assert isinstance(next(out), BadLine) and read == [3, -1]
    assert [item.where for item in out] == ["f:2", "f:0"]


def test_temporary_files_are_closed_when_a_reader_stops_early(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    make = spool.scratch
    monkeypatch.setattr(spool, "scratch", lambda: opened.append(made := make()) or made)
    reading = iter(Ordered(numbered([3, 2, 1]), by_value, chunk_bytes=1))
    next(reading)
    reading.close()  # type: ignore[attr-defined]
    assert opened and all(file.closed for file in opened)  # type: ignore[attr-defined]


def test_a_source_that_breaks_off_is_not_sorted_as_if_it_were_whole() -> None:
    def torn() -> Iterator[Record]:
        yield from numbered([1, 2])
        raise RecordError("torn", "the end is missing")

    out = []
    with pytest.raises(RecordError, match="the end is missing"):
        out += list(Ordered(torn(), by_value, chunk_bytes=1))
    assert out == []
