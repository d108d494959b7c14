"""JSON Lines and references: bytes kept, places named, packed files and broken ones."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from clipkit.errors import ClipkitError, UsageError
from clipkit.stream.record import Record
from clipkit.stream.sources import BadLine, SourceOptions, open_source
from clipkit.stream.sources.lines import split_lines


def read(*paths: str | Path, stdin: bytes = b"", **options: Any) -> list[Record | BadLine]:
    chosen = SourceOptions(paths=tuple(map(str, paths)), **options)
    return list(open_source(chosen, stdin=io.BytesIO(stdin), note=lambda message: None))


def records(items: list[Record | BadLine]) -> list[Record]:
    assert not [item for item in items if isinstance(item, BadLine)]
    return [item for item in items if isinstance(item, Record)]


def kinds(items: list[Record | BadLine]) -> list[str]:
    return [item.error.kind if isinstance(item, BadLine) else "ok" for item in items]


@contextlib.contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Gives, after the block, the most memory that Python objects held in it."""
    peak = 0
    tracemalloc.start()
    try:
        yield lambda: peak
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.text(), json_values, max_size=5).filter(
    lambda fields: not {"id", "uid", "key", "image"} & set(fields)
)


@given(st.lists(st.tuples(objects, st.booleans(), st.sampled_from([" ", ""])), max_size=12))
def test_any_objects_come_through_byte_for_byte_in_order(drawn: list[tuple[dict[str, Any], bool, str]]) -> None:
    lines = [pad + json.dumps(fields, ensure_ascii=escaped) + pad for fields, escaped, pad in drawn]
    got = records(read("-", stdin="\n".join(lines).encode()))
    assert [record.encode().decode() for record in got] == lines
    assert [record.to_dict() for record in got] == [fields for fields, _, _ in drawn]
    assert [record.where for record in got] == [f"stdin:{n}" for n in range(1, len(lines) + 1)]


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), max_size=8), st.integers(1, 7))
def test_lines_are_found_however_the_bytes_come(lines: list[bytes], size: int) -> None:
    class Trickle(io.BytesIO):
        def read1(self, wanted: int | None = -1) -> bytes:
            return self.read(size)

    data = b"".join(line + b"\n" for line in lines)
    assert list(split_lines(Trickle(data))) == lines
    if lines and lines[-1]:
        assert list(split_lines(Trickle(data[:-1]))) == lines


def test_bom_crlf_and_blank_lines() -> None:
    got = records(read("-", stdin=b'\xef\xbb\xbf{"id":"a"}\r\n\r\n  \n{"id":"b"}'))
    assert [(record.encode(), record.where) for record in got] == [
        (b'{"id":"a"}', "stdin:1"),
        (b'{"id":"b"}', "stdin:4"),
    ]


def test_origin_and_digest_say_what_the_input_said(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id":"1"}\n{"id":"2"}\n')
    first, second = records(read(tmp_path / "a.jsonl"))
    assert first.origin == str(tmp_path / "a.jsonl") and first.digest != second.digest and len(first.digest) == 16
    assert records(read("-", stdin=b'{"id":"1"}\n'))[0].digest == first.digest
    assert records(read("-", stdin=b'{"id":"1"}\n'))[0].origin == ""


def test_broken_lines_are_named_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id":1}\n{bad\n[1]\nphoto.jpg\n{"id":"\xff"}\n{"id":2}\n{"x":NaN}\n')
    got = read(path)
    assert kinds(got) == ["ok", "bad-json", "bad-json", "bad-json", "bad-utf8", "ok", "bad-json"]
    assert [item.where for item in got] == [f"{path}:{n}" for n in range(1, 8)]
    assert isinstance(got[1], BadLine) and got[1].text == b"{bad" and got[1].origin == str(path)


def test_a_line_too_long_is_one_bad_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipkit.stream.sources.lines.MAX_LINE", 1000)
    long = json.dumps({"id": "x" * 5000}).encode()
    got = read("-", stdin=b'{"id":"a"}\n' + long + b'\n{"id":"b"}\n' + long)
    assert kinds(got) == ["ok", "line-too-long", "ok", "line-too-long"]
    assert got[2].where == "stdin:3"


def test_references_as_find_prints_them() -> None:
    names = "./photos/a.jpg\nphotos/../b c.png\nhttps://x.org/i.jpg?s=1\ndata:image/png;base64,AA==\ns/train-01.tar#k/7.left.jpg\n"
    got = records(read("-", stdin=names.encode()))
    assert [record["image"] for record in got] == names.splitlines()
    assert [record.id for record in got][:3] == ["photos/a.jpg", "b c.png", "https://x.org/i.jpg?s=1"]
    assert (got[3].id or "").startswith("data-") and got[4].id == "train-01/k/7"
    assert got[0].to_dict() == {"id": "photos/a.jpg", "image": "./photos/a.jpg"}


def test_nul_separated_references_may_hold_anything() -> None:
    got = records(read("-", stdin=b"a\nb.jpg\0{x}.jpg\0 c.jpg\0", null=True))
    assert [record["image"] for record in got] == ["a\nb.jpg", "{x}.jpg", " c.jpg"]


def test_of_nul_separated_references_only_the_undecodable_one_fails() -> None:
    got = read("-", stdin=b"a b.jpg\0caf\xe9.jpg\0caf\xc3\xa9.jpg\0", null=True)
    assert kinds(got) == ["ok", "bad-utf8", "ok"]


def test_a_text_file_of_references_is_a_list(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a.jpg\nb.jpg\n")
    assert [record["image"] for record in records(read(tmp_path / "names.txt"))] == ["a.jpg", "b.jpg"]


LINES = b"".join(b'{"id":%d,"text":"%s"}\n' % (n, os.urandom(200).hex().encode()) for n in range(2000))


def gz(data: bytes) -> bytes:
    return gzip.compress(data[:5000]) + gzip.compress(data[5000:])


def zst(data: bytes) -> bytes:
    return zstandard.compress(data[:5000]) + zstandard.compress(data[5000:])


@pytest.mark.parametrize(("name", "pack"), [("a.jsonl.gz", gz), ("a.jsonl.zst", zst), ("no-suffix", gz), ("b", zst)])
def test_packed_files_of_several_members(tmp_path: Path, name: str, pack: Any) -> None:
    (tmp_path / name).write_bytes(pack(LINES))
    got = records(read(tmp_path / name))
    assert b"".join(record.encode() + b"\n" for record in got) == LINES
    assert b"".join(record.encode() + b"\n" for record in records(read("-", stdin=pack(LINES)))) == LINES


@pytest.mark.parametrize(("name", "pack"), [("a.jsonl.gz", gz), ("a.jsonl.zst", zst)])
@pytest.mark.parametrize("left", [0.999, 0.5])
def test_a_torn_archive_gives_what_it_has_then_an_error(tmp_path: Path, name: str, pack: Any, left: float) -> None:
    packed = pack(LINES)
    (tmp_path / name).write_bytes(packed[: int(len(packed) * left)])
    got: list[Record | BadLine] = []
    with pytest.raises(ClipkitError, match="ends too early") as caught:
        for item in open_source(SourceOptions((str(tmp_path / name),))):
            got.append(item)
    assert str(tmp_path / name) in str(caught.value)
    whole = [item for item in got if isinstance(item, Record)]
    assert whole and LINES.startswith(b"".join(record.encode() + b"\n" for record in whole))
    assert name.endswith("zst") or len(whole) > 2000 * left * 0.9  # a zstandard block comes whole or not at all


def test_damaged_archives_are_errors(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(LINES))
    packed[len(packed) // 2] ^= 0xFF
    (tmp_path / "a.jsonl.gz").write_bytes(packed)
    with pytest.raises(ClipkitError, match="compressed data is broken"):
        read(tmp_path / "a.jsonl.gz")
    (tmp_path / "b.jsonl.zst").write_bytes(b"\x28\xb5\x2f\xfd" + b"\xff" * 50)
    with pytest.raises(ClipkitError, match="compressed data is broken"):
        read(tmp_path / "b.jsonl.zst")


def test_a_zstandard_bomb_comes_in_pieces(tmp_path: Path) -> None:
    """A gigabyte of blanks in 100 kB: never more than a fraction of it in memory."""
    packer = zstandard.ZstdCompressor().compressobj()
    blank = b"x" * (1 << 20)
    packed = b"".join(packer.compress(blank) for _ in range(1024)) + packer.flush()
    (tmp_path / "a.jsonl.zst").write_bytes(packed)
    with traced() as peak:
        assert kinds(read(tmp_path / "a.jsonl.zst")) == ["line-too-long"]
    assert peak() < 400 << 20


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"\xff\xd8\xff\xe0" + bytes(600), "an image"),
        (b"PAR1" + bytes(600), "a parquet"),
        (b"\x7fELF\x80" + bytes(9) + b"x", "binary"),
    ],
)
def test_binary_data_on_stdin_is_refused(head: bytes, said: str) -> None:
    with pytest.raises(UsageError, match=f"stdin holds {said}"):
        read("-", stdin=head)


@pytest.mark.parametrize("data", [b'path,"category"\r\na.jpg,x\r\n', b"\xef\xbb\xbfn\tcategory\tpath\n1\tx\ta.jpg\n"])
def test_a_table_on_stdin_is_known_by_the_fields_of_map(data: bytes) -> None:
    with pytest.raises(UsageError, match=r"^stdin holds a [ct]sv$") as error:
        read("-", stdin=data, mapping={"image": "path", "label": "category"})
    assert error.value.hint == "save it and name the file"
    assert len(read("-", stdin=data)) == 2, "without --map they are references"
    assert len(read("-", stdin=b'{"path":"a.jpg","x":1}\n', mapping={"image": "path"})) == 1


def test_the_first_record_comes_before_the_last_is_written() -> None:
    end, start = os.pipe()
    with open(end, "rb") as stream, open(start, "wb", buffering=0) as writer:
        items = iter(open_source(SourceOptions(("-",)), stdin=stream))
        writer.write(b'{"id":"a"}\n{"id":')
        assert next(items).encode() == b'{"id":"a"}'  # type: ignore[union-attr]
        writer.write(b'"b"}\n')
        assert next(items).encode() == b'{"id":"b"}'  # type: ignore[union-attr]


def test_a_fifo_is_read_as_stdin_is(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    with subprocess.Popen([sys.executable, "-c", f"open({str(fifo)!r}, 'w').write('{{\"id\":1}}\\na.jpg\\n')"]):
        assert [record.id for record in records(read(fifo))] == ["1", "a.jpg"]


def test_a_hundred_thousand_records_in_flat_memory(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    with open(path, "w") as file:
        file.writelines(f'{{"id":"photo-{n}","text":"{"x" * 100}"}}\n' for n in range(100_000))
    with traced() as peak:
        assert sum(1 for _ in open_source(SourceOptions((str(path),)))) == 100_000
    assert peak() < 20 << 20  # a table of ids of 4 MiB (twice while it grows) and a few chunks; the file has 13 MiB


def test_limit_ends_reading() -> None:
    class Endless(io.RawIOBase):
        count = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            self.count += 1
            line = b'{"id":%d}\n' % self.count
            buffer[: len(line)] = line
            return len(line)

    stream = io.BufferedReader(Endless())
    assert len(list(open_source(SourceOptions(("-",), limit=3), stdin=stream))) == 3
    assert list(open_source(SourceOptions(("-",), limit=0), stdin=stream)) == []


def test_a_terminal_as_stdin_is_told() -> None:
    controller, terminal = os.openpty()
    notes: list[str] = []
    with open(terminal, "rb") as stream:
        os.write(controller, b'{"id":"a"}\n\x04')
        items = open_source(SourceOptions(), stdin=stream, note=notes.append)
        assert [item.encode() for item in items if isinstance(item, Record)] == [b'{"id":"a"}']
    os.close(controller)
    assert notes == ["reading records from the terminal; Ctrl-D ends"]


def test_a_closed_stdin_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="standard input is closed"):
        list(open_source(SourceOptions()))


def test_what_is_cut_of_a_bad_line_is_said() -> None:
    whole, cut = b"{" + b"x" * 65535, b"{" + b"x" * 65536
    first, second = read(stdin=whole + b"\n" + cut)
    assert isinstance(first, BadLine) and isinstance(second, BadLine)
    assert first.text == whole and "KiB" not in first.error.message
    assert second.text == cut[:65536] and second.error.message.endswith(" (only its first 64 KiB are kept)")
