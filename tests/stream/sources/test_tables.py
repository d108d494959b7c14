"""csv, tsv, parquet and COCO captions."""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.errors import ClipkitError, UsageError
from clipkit.stream.record import Record
from clipkit.stream.sources import BadLine, SourceOptions, open_source


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(*paths: str, notes: list[str] | None = None, **options: Any) -> list[Any]:
    say = notes.append if notes is not None else lambda message: None
    return list(open_source(SourceOptions(paths=paths, **options), note=say))


def dicts(items: list[Any]) -> list[dict[str, Any]]:
    assert all(isinstance(item, Record) for item in items), items
    return [item.to_dict() for item in items]


def test_csv_rows() -> None:
    Path("a.csv").write_bytes(
        b"\xef\xbb\xbfimage,text,width,height,price,note,n\r\n"
        b'a.jpg,"one, ""two""\r\nthree",640,4x,1.10,,3\r\n'
        b"\r\n"
        b",x,,,007,y,\r\n"
    )
    first, second = read("a.csv")
    assert first.to_dict() == {
        "image": "a.jpg",
        "text": 'one, "two"\r\nthree',
        "width": 640,
        "height": "4x",
        "price": "1.10",
        "note": "",
        "n": 3,
    }
    assert second.to_dict() == {"text": "x", "price": "007", "note": "y"}
    assert [first.where, second.where] == ["a.csv:2", "a.csv:5"]
    assert (first.id, second.id, first.origin) == ("a.jpg", None, "a.csv")


def test_bad_rows_are_named_and_the_rest_is_read() -> None:
    Path("a.csv").write_bytes(b'id,text\n1,a\n2\n3,c,d\n4,\xff\n5,e\n6,"open\n')
    got = read("a.csv")
    assert [item.error.kind if isinstance(item, BadLine) else item.id for item in got] == [
        "1",
        "bad-row",
        "bad-row",
        "bad-utf8",
        "5",
        "bad-row",
    ]
    assert [item.where for item in got] == [f"a.csv:{n}" for n in range(2, 8)]
    assert "expected 2 cells, as in the header, got 1" in str(got[1].error)
    assert got[3].text == b"4,\xff"


def test_tsv_and_packed_csv() -> None:
    Path("a.tsv").write_text("id\ttext\n1\ta, b\n")
    Path("b.csv.gz").write_bytes(gzip.compress(b"id,text\n2,c\n"))
    assert dicts(read("a.tsv", "b.csv.gz")) == [{"id": "1", "text": "a, b"}, {"id": "2", "text": "c"}]


def test_columns_get_our_names() -> None:
    Path("a.csv").write_text("filepath,title,w\na.jpg,t,9\n")
    names = {"image": "filepath", "text": "title", "width": "w"}
    assert dicts(read("a.csv", mapping=names)) == [{"image": "a.jpg", "text": "t", "width": 9}]
    Path("a.jsonl").write_text('{"filepath":"b.jpg","n":1.10}\n{"filepath":"c.jpg"}\n')
    got = read("a.jsonl", mapping={"image": "filepath"})
    assert [item.encode() for item in got] == [b'{"image":"b.jpg","n":1.10}', b'{"image":"c.jpg"}']
    assert got[0].id == "b.jpg"


@pytest.mark.parametrize(("name", "text"), [("a.csv", "a,b\n1,2\n"), ("a.jsonl", '{"a":1,"b":2}\n')])
def test_a_column_that_is_not_there(name: str, text: str) -> None:
    Path(name).write_text(text)
    with pytest.raises(UsageError, match="--map image=path: there is no field 'path'") as caught:
        read(name, mapping={"image": "path"})
    assert caught.value.hint == "the first record has: a, b"


@pytest.mark.parametrize(("suffix", "text"), [("csv", "text,b\n1,2\n"), ("jsonl", '{"text":"1","b":2}\n')])
def test_a_column_that_is_not_there_but_our_name_is(suffix: str, text: str) -> None:
    for name in "ab":
        Path(f"{name}.{suffix}").write_text(text)
    notes: list[str] = []
    got = read(f"a.{suffix}", f"b.{suffix}", mapping={"text": "captoin"}, notes=notes)
    assert [item["text"] for item in got] == ["1", "1"]
    assert notes == ["--map text=captoin: there is no field 'captoin'; text stays as it is"]


def test_a_name_that_is_taken() -> None:
    Path("a.csv").write_text("image,path\n1,2\n")
    with pytest.raises(ClipkitError, match="two columns are named 'image'"):
        read("a.csv", mapping={"image": "path"})
    Path("a.jsonl").write_text('{"image":"a","path":"b"}\n')
    assert read("a.jsonl", mapping={"image": "path"})[0].error.kind == "field-exists"


def test_a_csv_without_rows() -> None:
    Path("a.csv").write_text("")
    Path("b.csv").write_text("id,text\n")
    assert read("a.csv", "b.csv") == []


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)


@given(st.lists(st.tuples(cells, cells), max_size=8), st.sampled_from(["csv", "tsv"]), st.sampled_from(["\n", "\r\n"]))
def test_csv_and_jsonl_say_the_same(rows: list[tuple[str, str]], kind: str, end: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, csv.excel_tab if kind == "tsv" else csv.excel, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("text", "any"), *rows])
    Path(f"t.{kind}").write_bytes(text.getvalue().encode())
    Path("t.jsonl").write_text("".join(json.dumps({"text": a, "any": b}) + "\n" for a, b in rows))
    assert dicts(read(f"t.{kind}")) == dicts(read("t.jsonl"))


# Parquet


def test_parquet_rows() -> None:
    day = datetime.datetime(2026, 11, 1, 12, 30)
    table = pa.table(
        {
            "url": ["u1", "u2"],
            "text": ["a", None],
            "n": [1, None],
            "x": [math.nan, 0.5],
            "when": [day, day],
            "tags": [["a", "b"], []],
            "image": pa.array([{"bytes": b"\xff", "path": "a.jpg"}] * 2),
            "raw": [b"1", b"2"],
        }
    )
    pq.write_table(table, "a.parquet")
    notes: list[str] = []
    assert dicts(read("a.parquet", notes=notes)) == [
        {"url": "u1", "text": "a", "n": 1, "x": None, "when": "2026-11-01T12:30:00", "tags": ["a", "b"]},
        {"url": "u2", "x": 0.5, "when": "2026-11-01T12:30:00", "tags": []},
    ]
    assert notes == ["a.parquet: left out columns that hold bytes: image, raw"]
    assert [item.where for item in read("a.parquet")] == ["a.parquet:1", "a.parquet:2"]
    source = open_source(SourceOptions(("a.parquet",)))
    assert source.total == 2


def test_parquet_comes_in_batches_with_names_mapped() -> None:
    pq.write_table(pa.table({"path": [f"{n}.jpg" for n in range(5000)]}), "a.parquet")
    got = read("a.parquet", mapping={"image": "path"})
    assert [item.id for item in got] == [f"{n}.jpg" for n in range(5000)]
    assert len(read("a.parquet", limit=3)) == 3


def test_a_broken_parquet_is_one_line() -> None:
    Path("a.parquet").write_bytes(b"PAR1" + bytes(40))
    with pytest.raises(ClipkitError, match=r"a\.parquet: not a parquet file that can be read"):
        read("a.parquet")


def test_a_parquet_bomb_comes_in_portions() -> None:
    """A gigabyte in a kilobyte: one value, stored once, in every row."""
    huge = pa.DictionaryArray.from_arrays(pa.array([0] * 1024, pa.int32()), ["x" * 1_000_000])
    pq.write_table(pa.table({"text": huge}), "a.parquet", compression="zstd", store_schema=False)
    assert Path("a.parquet").stat().st_size < 2000
    before = pa.total_allocated_bytes()
    peak = 0
    for count, item in enumerate(open_source(SourceOptions(("a.parquet",), limit=150)), 1):
        assert isinstance(item, Record) and item.where == f"a.parquet:{count}" and len(item["text"]) == 1_000_000
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert count == 150 and 1_000_000 < peak < 150_000_000


def test_a_parquet_that_unpacks_to_more_than_memory_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipkit.stream.sources.tables.MAX_EXPANDED", 1 << 20)
    pq.write_table(pa.table({"text": ["x" * (2 << 20)]}), "a.parquet", compression="zstd")
    with pytest.raises(ClipkitError, match=r"^a\.parquet: a column that unpacks to over 1 MiB"):
        read("a.parquet")


def test_real_parquet(shared_data: Path) -> None:
    got = read(str(shared_data / "alttext/cc3m_val.parquet"))
    assert len(got) == 11162 and got[0].id == "cc3m-val-00000"
    assert set(got[0]) == {"id", "text", "url"}


# COCO


def coco(folder: str, **more: Any) -> str:
    Path(folder).mkdir(parents=True, exist_ok=True)
    described = {
        "info": {"year": 2017},
        "images": [
            {"id": 9, "file_name": "9.jpg", "width": 4, "height": 3, "license": 1},
            {"id": 4, "file_name": "4.jpg"},
        ],
        "annotations": [
            {"image_id": 4, "id": 1, "caption": "four"},
            {"image_id": 9, "id": 2, "caption": "nine\n"},
            {"image_id": 9, "id": 3, "caption": "IX"},
        ],
        **more,
    }
    path = f"{folder}/captions_val2017.json"
    Path(path).write_text(json.dumps(described))
    return path


@pytest.mark.parametrize("images", ["", "set/annotations", "set/val2017", "set/images/val2017"])
def test_coco_captions(images: str) -> None:
    path = coco("set/annotations")
    Path(images or ".").mkdir(parents=True, exist_ok=True)
    (Path(images) / "9.jpg").write_bytes(b"x")
    first, second = dicts(read(path))
    where = f"{images}/9.jpg".lstrip("/")
    assert first == {
        "id": "9",
        "file_name": "9.jpg",
        "width": 4,
        "height": 3,
        "license": 1,
        "image": where,
        "text": "nine",
        "texts": [{"text": "nine", "source": "coco"}, {"text": "IX", "source": "coco"}],
    }
    assert (second["id"], second["text"]) == ("4", "four")


def test_coco_without_captions_and_json_that_is_neither() -> None:
    assert "text" not in dicts(read(coco("a", annotations=[])))[0]
    Path("lines.json").write_text('{"id":"1"}\n{"id":"2"}\n')
    assert [item.id for item in read("lines.json")] == ["1", "2"]
    Path("array.json").write_text('[{"id":"1"}]')
    with pytest.raises(ClipkitError, match="neither JSON Lines nor COCO") as caught:
        read("array.json")
    assert caught.value.hint == "for records, one object a line: jq -c '.[]' array.json"
    Path("torn.json").write_text('{"images": [{"id": 1')
    with pytest.raises(ClipkitError, match=r"torn\.json: not JSON"):
        read("torn.json")
    path = coco("b", images=[{"id": 1}, {"id": 2, "file_name": "2.jpg"}])
    assert [isinstance(item, BadLine) for item in read(path)] == [True, False]


def test_captions_of_images_that_are_not_listed_are_counted() -> None:
    captions = [{"image_id": number, "caption": "x"} for number in (9, 5, 5, 6)]
    notes: list[str] = []
    assert len(read(coco("a", annotations=captions), notes=notes)) == 2
    assert notes == ["a/captions_val2017.json: left out 3 captions of images that it doesn't list"]


def test_a_json_that_is_too_large_to_be_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(coco("a", info=" " * 5_000_000))
    Path("a/packed.json.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert len(read(str(path))) == len(read("a/packed.json.gz")) == 2
    monkeypatch.setattr("clipkit.stream.sources.coco._HARMLESS", 1 << 20)
    assert len(read(str(path))) == 2
    with pytest.raises(ClipkitError, match=r"^a/packed\.json\.gz: it unpacks to over 100 times its size"):
        read("a/packed.json.gz")
    monkeypatch.setattr("clipkit.stream.sources.coco.MAX_JSON", 1 << 20)
    with pytest.raises(ClipkitError, match=r"^a/captions_val2017\.json: a json of more than 1 MiB"):
        read(str(path))
