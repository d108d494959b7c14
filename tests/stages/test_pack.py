"""`clipkit pack`: what goes in comes out, in id order, the same bytes however the run went."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from clipkit import api
from clipkit.errors import UsageError
from clipkit.packing.layout import Layout, parse_size
from clipkit.packing.sink import PackSink
from clipkit.stages.pack import Pack
from clipkit.stream.record import Record
from clipkit.stream.runner import RunOptions
from clipkit.stream.runner import run as run_stage
from clipkit.stream.sources import SourceOptions, open_source
from clipkit.stream.spool import Ordered


def paint(folder: Path, count: int, suffix: str = "jpg") -> None:
    folder.mkdir(exist_ok=True)
    for seed in range(count):
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((32, 24)).save(folder / f"{seed}.{suffix}")


def write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "clipkit.json").read_text())
    return found


def pack(lines: list[bytes], folder: Path, root: Path, layout: Layout | None = None, **how: Any) -> int:
    """What the verb does, in this process."""
    layout = layout or Layout()
    stage = Pack(layout.config(), {"root": str(root)})
    sink = PackSink(folder, layout, stage.images, resume=how.get("resume", False))
    source = folder.with_suffix(".jsonl")
    source.write_bytes(b"".join(line + b"\n" for line in lines))
    records = open_source(SourceOptions(paths=(str(source),), root=str(root)), note=lambda _: None)
    options = RunOptions(out=str(folder), on_error="skip", quiet=True, **how)
    return run_stage(stage, Ordered(records, sink.key), options, sink=sink)


def scan(folder: Path, pattern: str = "*.tar") -> list[Record]:
    return [record for record in api.read(*sorted(folder.glob(pattern))) if isinstance(record, Record)]


def raw_fields(record: Record) -> dict[str, bytes]:
    """Each field's bytes as JSON, but `image`."""
    return {name: bytes(raw) for name, raw in record._raw.items() if name != "image"}


# Round trip

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
IDS = st.one_of(
    st.sampled_from(
        ["a", "A", "a.b", "a.b.c", "x/y.jpg", "x/y", "../up", "/abs", " ", "~", "a-1", "é", "e\u0301", "漢字"]
    ),
    TEXTS.filter(bool),
)
FIELDS = st.dictionaries(
    st.sampled_from(["label", "texts", "scores", "uid", "key", "width", "__key__", "url", "", "a.b", "x"]),
    JSON,
    max_size=5,
)
CAPTIONS = st.one_of(TEXTS, st.sampled_from(["  a cat \n", "\ufeffbom", "", "\t", "\u3000wide\u3000", "nul\0"]))


@st.composite
def odd_records(draw: st.DrawFn) -> list[dict[str, Any]]:
    records: dict[str, dict[str, Any]] = {}
    for name in draw(st.lists(IDS, min_size=1, max_size=6)):
        fields = draw(FIELDS)
        made: dict[str, Any] = {"x": 1, **fields, "id": name}
        if draw(st.booleans()):
            made["text"] = draw(CAPTIONS)
        if "text" not in made or draw(st.booleans()):
            made["image"] = draw(st.sampled_from(["0.jpg", "1.jpg", "2.png"]))
        records[unicodedata.normalize("NFC", name)] = made
    return list(records.values())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    paint(folder, 2)
    paint(folder, 3, "png")
    return folder


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(records=odd_records(), ascii_only=st.booleans(), max_count=st.sampled_from([1, 2, 100]))
def test_packed_and_scanned_is_what_it_was(
    pictures: Path,
    tmp_path_factory: pytest.TempPathFactory,
    records: list[dict[str, Any]],
    ascii_only: bool,
    max_count: int,
) -> None:
    """Equal up to `image`, byte for byte, in the order of the ids; and the images are the very files."""
    folder = tmp_path_factory.mktemp("packed") / "pack"
    lines = [json.dumps(record, ensure_ascii=ascii_only).encode() for record in records]
    assert pack(lines, folder, pictures, Layout(max_count=max_count)) == 0
    given = sorted(map(Record.parse, lines), key=lambda record: (record.id or "").encode())
    found = scan(folder)
    assert [record.id for record in found] == [record.id for record in given]
    assert [raw_fields(record) for record in found] == [raw_fields(record) for record in given]
    for before, after in zip(given, found, strict=True):
        assert ("image" in before) == ("image" in after)
        if "image" in before:
            shard, _, member = after["image"].partition("#")
            with tarfile.open(shard) as tar:
                content = tar.extractfile(member)
                assert content is not None
                assert content.read() == (pictures / before["image"]).read_bytes()
            assert Path(member).suffix == Path(before["image"]).suffix


def test_numbers_keep_their_spelling(pictures: Path, tmp_path: Path) -> None:
    line = b'{"id":"a","image":"0.jpg","x":1.10,"y":1E400,"z":123456789012345678901234567890,"text":"caf\\u00e9 \\/"}'
    pack([line], tmp_path / "pack", pictures)
    (found,) = scan(tmp_path / "pack")
    assert raw_fields(found) == raw_fields(Record.parse(line))


def test_an_id_that_the_source_derived_is_written_down(pictures: Path, tmp_path: Path) -> None:
    pack(
        [b'{"image":"0.jpg"}', b'{"id":null,"image":"1.jpg"}', b'{"id":7,"image":"2.png"}'], tmp_path / "pack", pictures
    )
    assert [record.id for record in scan(tmp_path / "pack")] == ["0.jpg", "1.jpg", "7"]


# Shards


def test_the_order_of_the_input_and_the_workers_make_no_difference(pictures: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"id": f"r{n}", "image": f"{n % 2}.jpg", "text": str(n)}).encode() for n in range(30)]
    pack(lines, tmp_path / "a", pictures, Layout(max_count=7), workers=1)
    random.Random(0).shuffle(lines)
    pack(lines, tmp_path / "b", pictures, Layout(max_count=7), workers=4)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert [shard["count"] for shard in manifest(tmp_path / "a")["shards"]] == [7, 7, 7, 7, 2]


def test_a_tar_holds_nothing_of_the_day(pictures: Path, tmp_path: Path) -> None:
    pack([b'{"id":"a.b/c","image":"0.jpg","text":"t"}', b'{"id":"b","text":"alone"}'], tmp_path / "pack", pictures)
    with tarfile.open(tmp_path / "pack/00000.tar") as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == [
        *("000000000.jpg", "000000000.json", "000000000.txt"),
        *("000000001.json", "000000001.txt"),
    ]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}


def test_the_suffix_is_that_of_the_bytes(tmp_path: Path) -> None:
    paint(tmp_path, 1, "png")
    (tmp_path / "0.png").rename(tmp_path / "claims.jpeg")
    pack([b'{"id":"a","image":"claims.jpeg"}'], tmp_path / "pack", tmp_path)
    (found,) = scan(tmp_path / "pack")
    assert found["image"].endswith("#000000000.png")


@pytest.mark.parametrize("to", ["wds", "folder"])
def test_max_size_bounds_a_shard(pictures: Path, tmp_path: Path, to: str) -> None:
    lines = [json.dumps({"id": f"{n:02d}", "image": "0.jpg"}).encode() for n in range(70)]

    def shards(folder: str, max_size: int) -> list[dict[str, Any]]:
        pack(lines, tmp_path / folder, pictures, Layout(to, max_size=max_size))
        found: list[dict[str, Any]] = manifest(tmp_path / folder)["shards"]
        for shard in found:
            path = tmp_path / folder / shard["name"]
            held = path.rglob("*") if path.is_dir() else [path]
            assert sum(file.stat().st_size for file in held) == shard["size"] <= max_size
        return found

    some = shards("pack", 25_000)
    assert len(some) > 2
    assert len({shard["count"] for shard in some[:-1]}) == 1
    assert shards("exact", some[0]["size"]) == some
    assert shards("less", some[0]["size"] - 1)[0]["count"] < some[0]["count"]
    pack(lines[:3], tmp_path / "tiny", pictures, Layout(max_size=10))  # each is larger than a shard may be
    assert [shard["count"] for shard in manifest(tmp_path / "tiny")["shards"]] == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "size"), [("1GB", 10**9), ("500 mb", 5 * 10**8), ("64MiB", 1 << 26), ("10", 10), ("1.5k", 1500)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1XB", "GB", "1e9", "nan"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="--max-size takes bytes"):
        parse_size(text)


# Multiplicity


def test_n_repeats_a_record_and_0_leaves_it_out(tmp_path: Path, clipkit: Any) -> None:
    paint(tmp_path / "photos", 3)
    write(
        tmp_path / "in.jsonl",
        [{"id": str(n), "image": f"photos/{n}.jpg", "n": count} for n, count in enumerate((3, 0, 1))],
    )
    result = clipkit("pack", "in.jsonl", "-o", "pack", "--report", "r.json")
    assert (result.code, result.stdout) == (0, "")
    found = scan(tmp_path / "pack")
    assert [(record.id, record["n"]) for record in found] == [("0-0", 1), ("0-1", 1), ("0-2", 1), ("2", 1)]
    counts = json.loads((tmp_path / "r.json").read_text())["counts"]
    assert counts == {"read": 3, "kept": 2, "dropped": 1, "failed": 0, "passed": 0}
    assert manifest(tmp_path / "pack")["counts"] == {"records": 2, "samples": 4, "without_image": 0, "passed": 0}


def test_what_a_verb_marked_is_left_out(tmp_path: Path, clipkit: Any) -> None:
    paint(tmp_path / "photos", 1)
    mark = {"by": "dedup", "reason": "text", "value": None, "limit": None}
    rows = [{"id": "a", "image": "photos/0.jpg", "drop": None}, {"id": "b", "image": "gone.jpg", "drop": mark}]
    write(tmp_path / "in.jsonl", [*rows, {"id": "c", "text": "x", "n": 0}, {"id": "d", "text": "x", "drop": mark}])
    assert clipkit("pack", "in.jsonl", "-o", "pack", "--report", "r.json").code == 0
    assert [record.id for record in scan(tmp_path / "pack")] == ["a"]
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["counts"] == {"read": 4, "kept": 1, "dropped": 3, "failed": 0, "passed": 0}
    assert report["drops"] == {"marked": 2, "n is 0": 1}


@pytest.mark.parametrize("count", [-1, 1.5, "3", True, 10**9, [1]])
def test_a_strange_n_is_the_record_s_error(pictures: Path, count: Any) -> None:
    (record,) = api.run(
        Pack({}, {"root": str(pictures)}), [{"id": "a", "image": "0.jpg", "n": count}], on_error="keep", workers=1
    )
    assert record["error"]["type"] == "bad-field"


def test_a_copy_may_not_be_called_as_another_record(tmp_path: Path, clipkit: Any) -> None:
    rows = [{"id": "a", "text": "x", "n": 3}, {"id": "a!", "text": "y"}, {"id": "a-1", "text": "z"}]
    write(tmp_path / "in.jsonl", rows)
    result = clipkit("pack", "in.jsonl", "-o", "pack")
    assert result.code == 1
    assert "id 'a-1' is also that of a copy of 'a'" in result.stderr
    write(tmp_path / "in.jsonl", [*rows[:2], {"id": "a-3", "text": "z"}])
    assert clipkit("pack", "in.jsonl", "-o", "other").code == 0


def test_a_copy_s_name_is_free_again_once_the_ids_went_on(tmp_path: Path, clipkit: Any) -> None:
    rows = [{"id": f"{name}{n}", "text": "x", "n": 2} for name in "abc" for n in range(3)]
    write(tmp_path / "in.jsonl", [*rows, {"id": "a0-2", "text": "y"}, {"id": "a00-1", "text": "z"}])
    assert clipkit("pack", "in.jsonl", "-o", "pack").code == 0
    write(tmp_path / "in.jsonl", [*rows, {"id": "c2-0", "text": "y"}])
    assert clipkit("pack", "in.jsonl", "-o", "other").code == 1


# What fails


def test_what_fails_is_left_out_and_said(tmp_path: Path, clipkit: Any) -> None:
    paint(tmp_path / "photos", 2)
    (tmp_path / "photos/page.jpg").write_text("<html>not found</html>")
    (tmp_path / "secret").write_text("root:x:0:0")
    rows = [
        {"id": "good", "image": "photos/0.jpg"},
        {"id": "page", "image": "photos/page.jpg"},
        {"id": "missing", "image": "photos/none.jpg"},
        {"id": "secret", "image": "../secret"},
        {"id": "nothing"},
        {"text": "no id"},
        {"id": "odd", "image": 7},
        {"id": "came", "image": "photos/1.jpg", "error": {"verb": "fetch", "type": "http-404", "message": "gone"}},
    ]
    write(tmp_path / "in.jsonl", rows)
    (tmp_path / "root").mkdir()
    (tmp_path / "photos").rename(tmp_path / "root/photos")
    words = ["--root", "root", "--confine", "--rejects", "bad.jsonl", "--report", "r.json"]
    result = clipkit("pack", "in.jsonl", "-o", "pack", *words)
    assert (result.code, result.stdout) == (3, "")
    assert [record.id for record in scan(tmp_path / "pack")] == ["good"]
    rejects = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert {row.get("id"): row["error"]["type"] for row in rejects} == {
        "page": "image-format",
        "missing": "image-missing",
        "secret": "image-outside-root",
        "nothing": "missing-field",
        None: "missing-id",
        "odd": "bad-field",
        "came": "http-404",
    }
    counts = json.loads((tmp_path / "r.json").read_text())["counts"]
    assert counts == {"read": 8, "kept": 1, "dropped": 0, "failed": 6, "passed": 1}
    assert clipkit("pack", "in.jsonl", "-o", "strict", "--root", "root", "--on-error", "fail").code == 1


def test_what_is_in_the_way_is_refused(tmp_path: Path, clipkit: Any) -> None:
    paint(tmp_path / "photos", 2)
    before = files(tmp_path / "photos")
    for words, code, said in (
        ([], 2, "-o DIR is missing"),
        (["-o", "photos"], 2, "no pack of clipkit's"),
        (["-o", "photos/0.jpg"], 2, "is a file"),
        (["-o", "no/where"], 2, "there is no folder"),
        (["-o", "pack", "--on-error", "keep"], 2, "no place for what failed"),
        (["-o", "pack", "--shard", "1/2"], 2, "--shard"),
        (["-o", "pack", "--max-size", "big"], 2, "--max-size takes bytes"),
    ):
        result = clipkit("pack", "photos", *words)
        assert (result.code, result.stdout) == (code, ""), result.stderr
        assert said in result.stderr
    assert files(tmp_path / "photos") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]
    assert clipkit("pack", "photos", "-o", "pack").code == 0
    again = clipkit("pack", "photos", "-o", "pack")
    assert (again.code, "holds a pack already" in again.stderr) == (2, True)
    other = clipkit("pack", "photos", "-o", "pack", "--resume", "--max-count", "1")
    assert (other.code, "packed otherwise" in other.stderr) == (2, True)
    assert clipkit("pack", "photos", "-o", "pack", "--restart", "--max-count", "1").code == 0
    assert sorted(files(tmp_path / "pack")) == ["00000.tar", "00001.tar", "clipkit.json"]


@pytest.mark.parametrize("named", ["pack/00000.tar", "records.jsonl", "link/00000.tar"])
@pytest.mark.parametrize("flag", ["--restart", "--resume"])
def test_a_pack_is_not_packed_into_itself(tmp_path: Path, clipkit: Any, named: str, flag: str) -> None:
    paint(tmp_path / "photos", 2)
    assert clipkit("pack", "photos", "-o", "pack").code == 0
    write(tmp_path / "records.jsonl", [{"id": "a", "image": "pack/00000.tar#000000000.jpg"}])
    (tmp_path / "link").symlink_to("pack")
    before = files(tmp_path / "pack")
    result = clipkit("pack", named, "-o", "pack", flag)
    assert (result.code, "it is read from, too" in result.stderr) == (2, True)
    assert files(tmp_path / "pack") == before


def test_a_manifest_of_strangers_removes_nothing_else(tmp_path: Path, clipkit: Any) -> None:
    paint(tmp_path / "photos", 1)
    (tmp_path / "pack").mkdir()
    (tmp_path / "precious").write_text("x")
    shard = {"name": "../precious", "count": 1, "size": 1, "first": "", "last": "", "digest": ""}
    (tmp_path / "pack/clipkit.json").write_text(json.dumps({"format": 1, "kind": "pack", "shards": [shard]}))
    assert clipkit("pack", "photos", "-o", "pack", "--restart").code == 0
    assert (tmp_path / "precious").exists()


def test_an_empty_input_is_an_empty_pack(tmp_path: Path, clipkit: Any) -> None:
    (tmp_path / "none").mkdir()
    assert clipkit("pack", "none", "-o", "pack").code == 0
    assert clipkit("pack", "none", "-o", "strict", "-e").code == 4
    assert manifest(tmp_path / "pack")["shards"] == []


def test_images_out_of_shards_and_data_uris(pictures: Path, tmp_path: Path, clipkit: Any) -> None:
    pack([b'{"id":"b","image":"0.jpg","text":"t","x":[1.0]}'], tmp_path / "first", pictures)
    assert clipkit("pack", "first/00000.tar", "-o", "second").code == 0
    assert files(tmp_path / "first") == files(tmp_path / "second")
    write(
        tmp_path / "in.jsonl", [{"id": "a", "image": "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs="}]
    )
    assert clipkit("pack", "in.jsonl", "-o", "third").code == 0
    (found,) = scan(tmp_path / "third")
    assert found["image"].endswith(".gif")


# Resume


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_run_resumes_to_the_same_bytes(tmp_path: Path, clipkit: Any) -> None:
    paint(tmp_path / "photos", 40)
    rows = [{"id": f"{n:05d}", "image": f"photos/{n % 40}.jpg", "text": "x" * (n % 97)} for n in range(4000)]
    rows[123]["image"] = "photos/none.jpg"
    rows[3999]["n"] = 5
    write(tmp_path / "in.jsonl", rows)
    words = ["pack", "in.jsonl", "--max-count", "150", "--rejects", "bad.jsonl"]
    assert clipkit(*words, "-o", "whole").code == 3
    killed = 0
    for moment in (0.35, 0.5, 0.7):
        command = [sys.executable, "-P", "-m", "clipkit", *words, "-o", "pack", *(["--resume"] if killed else [])]
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 30
            want = killed * 3 + 1
            while process.poll() is None and time.monotonic() < deadline:
                if len(list((tmp_path / "pack").glob("*.tar"))) >= want:
                    process.send_signal(signal.SIGKILL)
                    break
                time.sleep(0.002 * moment)
        killed += process.wait() == -signal.SIGKILL
    assert killed
    assert manifest(tmp_path / "pack")["kind"] == "unfinished pack"
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "pack").glob("*.tar")}
    refused = clipkit(*words, "-o", "pack")
    assert (refused.code, "unfinished" in refused.stderr) == (2, True)
    assert clipkit(*words, "-o", "pack", "--resume").code == 3
    assert files(tmp_path / "pack") == files(tmp_path / "whole")
    now = {name: (tmp_path / "pack" / name).stat().st_mtime_ns for name in kept}
    assert sum(now[name] == kept[name] for name in kept) >= len(kept) - 1  # one may have lacked its note


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_disk_that_is_full_leaves_whole_shards_only(tmp_path: Path, clipkit: Any) -> None:
    import resource

    Image.new("RGB", (200, 200)).save(tmp_path / "large.bmp")  # 120 kB
    rows = [{"id": str(n), "text": "x"} for n in range(9)]
    write(tmp_path / "in.jsonl", [*rows, {"id": "last", "image": "large.bmp"}])
    command = [sys.executable, "-P", "-m", "clipkit", "pack", "in.jsonl", "-o", "pack", "--max-count", "9"]
    full = (60_000, 60_000)  # bytes of a file: as a disk that takes no more
    run = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, full),
    )
    assert run.returncode == 1
    assert "Traceback" not in run.stderr and "--resume" in run.stderr
    assert [path.name for path in (tmp_path / "pack").glob("0*")] == ["00000.tar"]
    assert clipkit("pack", "in.jsonl", "-o", "pack", "--max-count", "9", "--resume").code == 0
    assert [record.id for record in scan(tmp_path / "pack")] == [*map(str, range(9)), "last"]


@pytest.mark.parametrize("to", ["wds", "folder", "coco", "csv"])
def test_resume_follows_a_changed_input(pictures: Path, tmp_path: Path, to: str) -> None:
    root = tmp_path / "root"
    paint(root, 12)
    lines = [json.dumps({"id": f"{n:02d}", "image": f"{n}.jpg", "text": "t"}).encode() for n in range(12)]
    layout = Layout(to, max_count=4)
    pack(lines, tmp_path / "pack", root, layout)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "pack").iterdir()}
    changed = [*lines[:5], *lines[6:], json.dumps({"id": "11x", "image": "0.jpg", "text": "new"}).encode()]
    (root / "10.jpg").write_bytes((pictures / "1.jpg").read_bytes())
    pack(changed, tmp_path / "pack", root, layout, resume=True)
    pack(changed, tmp_path / "fresh", root, layout)
    assert files(tmp_path / "pack") == files(tmp_path / "fresh")
    first = next(name for name in before if name.startswith("00000"))
    assert (tmp_path / "pack" / first).stat().st_mtime_ns == before[first]  # not written again
    pack(changed[:3], tmp_path / "pack", root, layout, resume=True)  # shards too many go
    pack(changed[:3], tmp_path / "short", root, layout)
    assert files(tmp_path / "pack") == files(tmp_path / "short")


def test_a_shard_that_was_cut_is_written_again(pictures: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"id": str(n), "image": "0.jpg"}).encode() for n in range(4)]
    pack(lines, tmp_path / "pack", pictures, Layout(max_count=2))
    before = files(tmp_path / "pack")
    os.truncate(tmp_path / "pack/00001.tar", 512)
    pack(lines, tmp_path / "pack", pictures, Layout(max_count=2), resume=True)
    assert files(tmp_path / "pack") == before


# Other forms


def test_a_folder_reads_back(pictures: Path, tmp_path: Path) -> None:
    lines = [
        json.dumps({"id": f"a.{n}", "image": f"{n % 2}.jpg", "text": f" t{n} ", "x": [n]}).encode() for n in range(5)
    ]
    pack([*lines, b'{"id":"z","text":"no image"}'], tmp_path / "pack", pictures, Layout("folder", max_count=3))
    found = scan(tmp_path, "pack")
    assert [raw_fields(record) for record in found] == [raw_fields(Record.parse(line)) for line in lines]
    assert Path(found[0]["image"]).read_bytes() == (pictures / "0.jpg").read_bytes()


def test_coco_reads_back(pictures: Path, tmp_path: Path) -> None:
    no = {"text": "not so", "negative": True}
    rows = [
        {"id": "17", "image": "0.jpg", "width": 32, "text": "one", "texts": [{"text": "one"}, "two", None, no]},
        {"id": "4", "image": "1.jpg", "text": "three"},
    ]
    pack([json.dumps(row).encode() for row in rows], tmp_path / "pack", pictures, Layout("coco"))
    coco = json.loads((tmp_path / "pack/00000/captions.json").read_text())
    assert coco["images"][0] == {"id": 17, "width": 32, "file_name": "000000000.jpg"}
    assert coco["annotations"] == [
        {"id": 1, "image_id": 17, "caption": "one"},
        {"id": 2, "image_id": 17, "caption": "two"},
        {"id": 3, "image_id": 4, "caption": "three"},
    ]
    found = scan(tmp_path / "pack", "*/captions.json")
    assert [(r.id, r["text"], r.get("width")) for r in found] == [("17", "one", 32), ("4", "three", None)]
    assert Path(found[1]["image"]).read_bytes() == (pictures / "1.jpg").read_bytes()


ROWS: list[dict[str, Any]] = [
    {
        "id": "b",
        "image": "x.jpg",
        "text": 'say "hi",\nyou',
        "scores": {"clip": 0.25, "n": 1},
        "k": 3,
        "mixed": 1,
        "ok": True,
    },
    {
        "id": "a",
        "image": "y.jpg",
        "scores": {"clip": 1},
        "list": [1, {"a": None}],
        "k": None,
        "mixed": "one",
        "big": 10**30,
    },
]


def test_csv_is_flat(tmp_path: Path) -> None:
    pack([json.dumps(row).encode() for row in ROWS], tmp_path / "pack", tmp_path, Layout("csv"))
    with open(tmp_path / "pack/00000.csv", newline="") as file:
        a, b = csv.DictReader(file)
    assert list(a) == ["id", "image", "text", "big", "k", "list", "mixed", "ok", "scores.clip", "scores.n"]
    told = {
        "id": "a",
        "image": "y.jpg",
        "scores.clip": "1",
        "list": '[1,{"a":null}]',
        "mixed": '"one"',
        "big": str(10**30),
    }
    assert a == dict.fromkeys(a, "") | told
    assert (b["text"], b["scores.clip"], b["mixed"], b["ok"]) == ('say "hi",\nyou', "0.25", "1", "true")


def test_parquet_has_types_and_reads_back(tmp_path: Path) -> None:
    import pyarrow.parquet as parquet

    rows = [*ROWS, *({"id": f"c{n}", "image": f"{n}.jpg", "k": n} for n in range(10))]
    pack([json.dumps(row).encode() for row in rows], tmp_path / "pack", tmp_path, Layout("parquet", max_count=5))
    tables = [parquet.read_table(path) for path in sorted((tmp_path / "pack").glob("*.parquet"))]
    assert len({str(table.schema) for table in tables}) == 1
    kinds = {field.name: str(field.type) for field in tables[0].schema}
    assert kinds | {"k": "int64", "scores.clip": "double", "ok": "bool", "mixed": "string", "list": "string"} == kinds
    found = scan(tmp_path / "pack", "*.parquet")
    assert [record.id for record in found] == sorted(row["id"] for row in rows)
    assert found[1].lookup("scores.clip") == 0.25


def test_numbers_of_two_kinds_in_a_table(tmp_path: Path) -> None:
    rows = [{"id": "a", "k": 1.5}, {"id": "b", "k": 2**53 + 1}, {"id": "c", "u": 2**64 - 1}]
    given = [json.dumps(row).encode() for row in rows]
    pack(given, tmp_path / "csv", tmp_path, Layout("csv"))
    assert (tmp_path / "csv/00000.csv").read_text() == f"id,k,u\na,1.5,\nb,{2**53 + 1},\nc,,{2**64 - 1}\n"
    pack(given, tmp_path / "parquet", tmp_path, Layout("parquet"))
    found = scan(tmp_path / "parquet", "*.parquet")
    assert [(record.get("k"), record.get("u")) for record in found] == [
        (1.5, None),
        (float(2**53), None),
        (None, str(2**64 - 1)),
    ]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves its files to the collector
def test_webdataset_reads_it(pictures: Path, tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    pack([b'{"id":"a","image":"0.jpg","text":"t"}', b'{"id":"b","image":"1.jpg"}'], tmp_path / "pack", pictures)
    first, second = webdataset.WebDataset(str(tmp_path / "pack/00000.tar"), shardshuffle=False)
    assert (first["__key__"], first["txt"], json.loads(first["json"])["id"]) == ("000000000", b"t", "a")
    assert hashlib.sha256(second["jpg"]).digest() == hashlib.sha256((pictures / "1.jpg").read_bytes()).digest()
