"""Folders with captions beside their images, and tar shards, hostile ones included."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

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


def make(**files: bytes | str) -> None:
    for name, data in files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)


def test_sidecars() -> None:
    make(**{"d/a.jpg": "x", "d/a.txt": " a cat\n", "d/a.json": '{"n":1.10,"text":"old","image":"no.jpg","id":null}'})
    make(
        **{
            "d/b.png": "x",
            "d/b.json": '{"uid":"u7"}',
            "d/c.jpg": "x",
            "d/c.JPG": "y",
            "d/README.md": "x",
            "d/lone.txt": "x",
        }
    )
    notes: list[str] = []
    lines = [item.encode().decode() for item in read("d", notes=notes)]
    assert lines == [
        '{"id":"a.jpg","image":"d/a.jpg","n":1.10,"text":"a cat",'
        '"texts":[{"text":"old","source":"json"},{"text":"a cat","source":"txt"}]}',
        '{"image":"d/b.png","uid":"u7"}',
        '{"id":"c.JPG","image":"d/c.JPG"}',
        '{"id":"c.jpg","image":"d/c.jpg"}',
    ]
    assert [item.id for item in read("d")] == ["a.jpg", "u7", "c.JPG", "c.jpg"]
    assert notes == ["d: left out what is no image: 1 .md, 1 .txt"]
    assert read("d/a.jpg")[0].encode().decode() == lines[0].replace('"a.jpg"', '"d/a.jpg"')


@pytest.mark.parametrize(
    ("own", "texts"),
    [
        ('{"text":"new"}', None),
        ('{"text":null}', None),
        (
            '{"text":"old","texts":[{"text":"old","source":"web","p":1.10},"odd"]}',
            '[{"text":"old","source":"web","p":1.10},"odd",{"text":"new","source":"txt"}]',
        ),
        ('{"text":"old","texts":null}', '[{"text":"old","source":"json"},{"text":"new","source":"txt"}]'),
    ],
)
def test_a_caption_beside_a_json_loses_no_text(own: str, texts: str | None) -> None:
    make(**{"d/a.jpg": "x", "d/a.txt": "new", "d/a.json": own})
    tar("s.tar", [("a.jpg", b"x"), ("a.txt", b"new"), ("a.json", own.encode())])
    for record in (*read("d"), *read("s.tar")):
        assert record["text"] == "new"
        line = record.encode().decode()
        assert f'"texts":{texts}' in line if texts else "texts" not in record


def test_names_are_mapped_before_ids_are_chosen() -> None:
    make(**{"d/a.jpg": "x", "d/a.json": '{"sku":"X1"}', "d/b.jpg": "x", "d/b.json": '{"sku":"X2","id":"Y"}'})
    tar("s.tar", [("a.jpg", b"x"), ("a.json", b'{"sku":"X1"}')])
    first, second = read("d", mapping={"id": "sku"})
    assert first.encode() == b'{"image":"d/a.jpg","id":"X1"}'
    assert isinstance(second, BadLine) and second.error.kind == "field-exists"
    assert [item.id for item in read("s.tar", "d/a.jpg", mapping={"id": "sku"}, dup_ids="suffix")] == ["X1", "X1~2"]


def test_sidecars_outside_the_root_are_left_out_when_confined() -> None:
    make(**{"secret": "host", "secret.json": '{"key":"k"}', "d/a.jpg": "x", "d/b.jpg": "x", "d/b2.txt": "in"})
    os.symlink("../secret", "d/a.txt")
    os.symlink("../secret.json", "d/a.json")
    os.symlink("b2.txt", "d/b.txt")
    notes: list[str] = []
    got = read("d", root="d", confine=True, notes=notes)
    assert [item.to_dict() for item in got] == [
        {"id": "a.jpg", "image": "a.jpg"},
        {"id": "b.jpg", "image": "b.jpg", "text": "in"},
    ]
    assert "d: left out 2 captions and fields that lie outside the root" in notes
    assert "text" not in read("d/a.jpg", root="d", confine=True)[0]
    assert read("d", root="d")[0]["text"] == "host"


def test_folders_within_folders_without_end() -> None:
    """Deeper than Python may call, and beyond the longest path that the system opens."""
    deep = "e/" * 1500
    make(**{"d/z.jpg": "x"})
    here = os.getcwd()
    os.chdir("d")
    for level in range(2500):
        os.mkdir("e")
        os.chdir("e")
        if level == 1499:
            Path("a.jpg").touch()
    os.chdir(here)
    got = read("d")
    subprocess.run(["rm", "-r", "d/e"], check=True)  # what clears up after tests cannot go so deep
    assert [item.id for item in got if isinstance(item, Record)] == [f"{deep}a.jpg", "z.jpg"]
    assert [item.error.kind for item in got if isinstance(item, BadLine)] == ["unreadable-folder"]


def test_our_own_outputs_are_no_input() -> None:
    make(**{"d/a.jpg": "x", "d/a.jpg.lock": "1", "d/README": "x", "d/out.jsonl": "{}", "d/new": "{}"})
    make(**{f"d/{name}": "{}" for name in ("out.jsonl.part", "out.jsonl.lock", "out.jsonl.journal", "new.part")})
    notes: list[str] = []
    assert [item.id for item in read("d", notes=notes)] == ["a.jpg"]
    assert notes == ["d: left out what is no image: 1 README"]
    assert [item.id for item in read("d/a*")] == ["d/a.jpg"]
    with pytest.raises(UsageError, match=r"d/new\.part is an output that isn't finished"):
        read("d/new.part")


def test_sidecars_that_are_broken() -> None:
    make(
        **{
            "d/a.jpg": "",
            "d/a.json": "[1]",
            "d/b.jpg": "",
            "d/b.txt": b"\xff",
            "d/c.jpg": "",
            "d/c.json": '{"x":' + "[" * 10**5,
        }
    )
    make(**{"d/e.jpg": "", "d/e.txt": b"\xef\xbb\xbfhi"})
    got = read("d")
    assert [item.error.kind if isinstance(item, BadLine) else item["text"] for item in got] == ["bad-sidecar"] * 3 + [
        "hi"
    ]
    assert got[0].where == "d/a.jpg"


def test_what_a_folder_leaves_out() -> None:
    make(
        **{
            "d/.hidden.jpg": "x",
            "d/.git/a.jpg": "x",
            "d/a.jpg": "x",
            "d/plain": b"\xff\xd8\xff",
            "d/other": "text",
            "d/e.jpg/f.png": "x",
        }
    )
    os.mkfifo("d/pipe")
    os.mkfifo("d/pipe.jpg")
    os.symlink("nowhere", "d/gone.jpg")
    os.symlink("..", "d/loop")
    os.symlink("a.jpg", "d/link.jpg")
    assert [item.id for item in read("d")] == ["a.jpg", "e.jpg/f.png", "gone.jpg", "link.jpg", "pipe.jpg", "plain"]


def test_linked_folders_are_followed() -> None:
    make(**{"else/a.jpg": "x"})
    Path("d").mkdir()
    os.symlink("../else", "d/in")
    assert [(item.id, item["image"]) for item in read("d")] == [("in/a.jpg", "d/in/a.jpg")]


def test_an_empty_folder_is_an_empty_input_and_shards_in_one_are_pointed_out() -> None:
    Path("inbox").mkdir()
    assert read("inbox") == []
    make(**{"s/a.tar": "x"})
    notes: list[str] = []
    assert read("s", notes=notes) == []
    assert notes[-1] == "s: to read the shards in it, name them: s/*.tar"


def test_names_that_are_not_utf8() -> None:
    Path("d").mkdir()
    with open(b"d/\xff.jpg", "wb"):
        pass
    make(**{"d/b.jpg": "x"})
    got = read("d")
    assert sorted(item.error.kind if isinstance(item, BadLine) else item.id for item in got) == ["b.jpg", "bad-name"]
    bad = next(item for item in got if isinstance(item, BadLine))
    assert bad.where == "d/\\xff.jpg" and bad.text == b"d/\xff.jpg"


def test_many_images_in_flat_memory() -> None:
    """Ten folders of 300: what is held depends on one of them."""
    for folder in range(10):
        Path(f"d/{folder}").mkdir(parents=True)
        for n in range(300):
            Path(f"d/{folder}/{n}.jpg").touch()
    items = iter(open_source(SourceOptions(("d",))))
    assert next(items).id == "0/0.jpg"  # type: ignore[union-attr]
    tracemalloc.start()
    assert sum(1 for _ in items) == 2999
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


folder_names = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="/."), min_size=1, max_size=5
)


@given(st.sets(st.tuples(folder_names, folder_names), max_size=8))
def test_a_folder_in_any_order_gives_one_order(
    tmp_path_factory: pytest.TempPathFactory, names: set[tuple[str, str]]
) -> None:
    orders = []
    for listed in (sorted(names), sorted(names, reverse=True)):
        top = tmp_path_factory.mktemp("d")
        for folder, name in listed:
            (top / folder).mkdir(exist_ok=True)
            (top / folder / f"{name}.jpg").touch()
        orders.append([item.id for item in open_source(SourceOptions((str(top),), dup_ids="suffix"))])
    assert orders[0] == orders[1] and len(orders[0]) == len(names)


# Shards


def tar(path: str, members: list[tuple[str, bytes | tarfile.TarInfo]], format: int = tarfile.GNU_FORMAT) -> None:
    with tarfile.open(path, "w", format=format) as shard:
        for name, data in members:
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(data, bytes):
                info.size = len(data)
            shard.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)


def test_samples() -> None:
    members = [
        ("k/1.jpg", b"x"), ("k/1.txt", b"a cat\n"), ("k/1.json", b'{"uid":"u","n":1.10}'), ("k/1.cls", b"7"),
        ("./2.seg.png", b"x"), ("./2.PNG", b"x"), ("./2.txt.gz", gzip.compress(b"packed")),
        ("3.txt", b"no image"), ("4.mp", b"x"), ("readme", b"x"), ("__meta__.json", b"{}"), ("5.webp", b"x"),
    ]  # fmt: skip
    os.mkdir("in")
    tar("in/s-0.tar", members)
    notes: list[str] = []
    got = read("in/s-0.tar", notes=notes)
    assert [item.to_dict() for item in got] == [
        {"image": "in/s-0.tar#k/1.jpg", "uid": "u", "n": 1.1, "text": "a cat", "label": "7"},
        {"id": "s-0/2", "image": "in/s-0.tar#./2.PNG", "text": "packed"},
        {"id": "s-0/3", "text": "no image"},
        {"id": "s-0/5", "image": "in/s-0.tar#5.webp"},
    ]
    assert [item.id for item in got] == ["u", "s-0/2", "s-0/3", "s-0/5"]
    assert got[0].origin == "in/s-0.tar" and got[0].where == "in/s-0.tar#k/1"
    assert notes == ["in/s-0.tar: left out samples with only .mp (1)"]
    assert read("in/s-0.tar#./2.PNG")[0].id == "s-0/2"


def test_members_of_one_key_apart_are_equal_ids() -> None:
    tar("s.tar", [("a.jpg", b"x"), ("b.jpg", b"x"), ("a.txt", b"t"), ("a.txt", b"u")])
    got = read("s.tar")
    assert [item.id if isinstance(item, Record) else str(item.error) for item in got] == [
        "s/a",
        "s/b",
        "s.tar#a: id 's/a' is also that of sample 1 of s.tar",
        "s.tar#a: id 's/a' is also that of sample 1 of s.tar",
    ]


def special(name: str, kind: bytes, link: str = "") -> tuple[str, tarfile.TarInfo]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return name, info


def test_hostile_members_are_left_out() -> None:
    members = [
        ("../../etc/a.jpg", b"x"), ("/abs/b.jpg", b"x"), special("c.jpg", tarfile.SYMTYPE, "/etc/passwd"),
        special("d.jpg", tarfile.LNKTYPE, "b.jpg"), special("e.jpg", tarfile.FIFOTYPE),
        special("f.jpg", tarfile.CHRTYPE), special("g", tarfile.DIRTYPE), ("ok.jpg", b"x"), ("a..b.jpg", b"x"),
    ]  # fmt: skip
    tar("s.tar", members)
    notes: list[str] = []
    assert [item.id for item in read("s.tar", notes=notes)] == ["s/ok", "s/a"]
    assert notes == ["s.tar: left out links and special files (4), names that lead out of the shard (2)"]


def test_members_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipkit.stream.sources.tars.MAX_SIDECAR", 1000)
    bomb = gzip.compress(bytes(10**6))
    tar(
        "s.tar",
        [
            ("1.json", b" " * 1001),
            ("2.txt.gz", bomb),
            ("3.txt.gz", bomb[:50]),
            ("4.json", b"{"),
            ("5.cls", b"\xff"),
            ("6.txt", b"ok"),
        ],
    )
    got = read("s.tar")
    assert [item.error.kind if isinstance(item, BadLine) else item["text"] for item in got] == ["bad-sidecar"] * 5 + [
        "ok"
    ]
    tar("t.tar", [("\udcff.jpg", b"x"), ("ok.jpg", b"x")])
    assert [item.error.kind if isinstance(item, BadLine) else item.id for item in read("t.tar")] == ["bad-name", "t/ok"]


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_formats(format: int) -> None:
    long = "d/" + "n" * 90 + ("é" if format != tarfile.USTAR_FORMAT else "e")
    tar("s.tar", [(f"{long}.jpg", b"x"), (f"{long}.txt", b"t")], format)
    assert [(item.id, item["text"]) for item in read("s.tar")] == [(f"s/{long}", "t")]


def test_a_torn_shard_gives_its_whole_samples_then_an_error() -> None:
    members = [(f"{n:03}.{ext}", b"x" * 700) for n in range(20) for ext in ("jpg", "txt")]
    tar("s.tar", members)
    whole = Path("s.tar").read_bytes()
    for cut in range(512, 20 * 2 * 1536, 511):
        Path("s.tar").write_bytes(whole[:cut])
        got: list[Any] = []
        try:
            for item in open_source(SourceOptions(("s.tar",))):
                got.append(item)
        except ClipkitError as error:
            assert "cut off" in str(error)
        else:
            assert cut % 1536 == 0  # between members: nothing tells that more was to come
        assert [item.id for item in got] == [f"s/{n:03}" for n in range(len(got))]
        assert len(got) >= cut // 3072
        assert all("text" in item for item in got[:-1])


def test_garbage_in_the_middle_is_an_error_not_the_end() -> None:
    tar("s.tar", [(f"{n}.jpg", b"x" * 512) for n in range(5)])
    data = bytearray(Path("s.tar").read_bytes())
    data[2 * 1024 : 2 * 1024 + 512] = b"\x99" * 512
    Path("s.tar").write_bytes(data)
    with pytest.raises(ClipkitError, match="no header where one should be, at byte 2048"):
        read("s.tar")
    Path("e.tar").write_bytes(b"")
    with pytest.raises(ClipkitError, match=r"e\.tar: the tar is broken or cut off: empty file"):
        read("e.tar")
    tar("none.tar", [])
    assert read("none.tar") == []


def test_shards_in_order_with_patterns() -> None:
    for n in range(3):
        tar(f"s-{n}.tar", [(f"{k}.jpg", b"x") for k in "ab"])
    ids = [item.id for item in read("s-{0..2}.tar")]
    assert ids == [f"s-{n}/{k}" for n in range(3) for k in "ab"]
    assert [item.id for item in read("s-*.tar", shard=(2, 3))] == ["s-1/a", "s-1/b"]


def test_many_samples_in_flat_memory() -> None:
    tar("s.tar", [(f"{n}.jpg", b"x") for n in range(5000)])
    items = iter(open_source(SourceOptions(("s.tar",))))
    next(items)
    tracemalloc.start()
    assert sum(1 for _ in items) == 4999
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_the_shards_that_webdataset_is_tested_with(shared_data: Path) -> None:
    folder = shared_data / "refs/webdataset_fixtures"
    got = read(str(folder / "compressed.tar"))
    assert (got[0].id, got[0]["text"]) == ("compressed/compressed/0001", "hello")
    with gzip.open(folder / "sample.tgz") as packed:
        Path("sample.tar").write_bytes(packed.read())
    got = read("sample.tar")
    with tarfile.open("sample.tar") as shard:
        names = shard.getnames()
    assert [item.id for item in got] == [f"sample/{name[:-4]}" for name in names if name.endswith(".png")]
    assert all(item["image"] == f"sample.tar#{item.id.removeprefix('sample/')}.png" for item in got)
    assert all(item["label"].isdecimal() for item in got)
    notes: list[str] = []
    assert read(str(folder / "tendata.tar"), notes=notes) == []
    assert notes == [f"{folder / 'tendata.tar'}: left out samples with only .ten (100)"]


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # it leaves files open
def test_what_webdataset_writes(tmp_path: Path) -> None:
    """Its own reader groups the same members into the same samples."""
    pytest.importorskip("torch")
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter("w.tar") as writer:
        for n in range(10):
            writer.write({"__key__": f"sub.dir/k{n}", "jpg": b"\xff\xd8\xff", "txt": f"text {n}", "json": {"n": n}})
    theirs = list(webdataset.WebDataset("w.tar", shardshuffle=False, empty_check=False))
    ours = read("w.tar")
    assert [item.id for item in ours] == [f"w/{sample['__key__']}" for sample in theirs]
    assert [item["text"].encode() for item in ours] == [sample["txt"] for sample in theirs]
    assert [item["n"] for item in ours] == [json.loads(sample["json"])["n"] for sample in theirs]
