"""Examples in tar shards: the same that the tar as SOURCE gives, each once in an epoch, and nothing of it is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import msgspec
import pytest
from PIL import Image

from clipkit.errors import ClipkitError, RecordError, UsageError
from clipkit.images.opener import Opener
from clipkit.stream.record import Record
from clipkit.stream.sources import SourceOptions, open_source
from clipkit.stream.sources.context import BadLine
from clipkit.training.examples import Example, Row, row_of
from clipkit.training.shards import Shard, ShardExamples, shard_of, shard_paths, shard_records


def png(shade: int, side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), (shade, shade, 0)).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def pairs(start: int, count: int, side: int = 8) -> list[tuple[str, bytes]]:
    return [
        member
        for number in range(start, start + count)
        for member in ((f"{number:06}.png", png(number % 256, side)), (f"{number:06}.txt", b"number %d" % number))
    ]


def made(*paths: Path, held: int = 1 << 20, seed: int = 0) -> ShardExamples:
    shards = [shard_of(record) for record in shard_records([str(path) for path in paths])]
    return ShardExamples(shards, Opener(), seed, held=held)


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    counts = {"a": (0, 30), "b": (30, 7), "c": (37, 23)}
    return [write_tar(tmp_path / f"{name}.tar", pairs(*span)) for name, span in counts.items()]


def walked(
    examples: ShardExamples, count: int, first: int = 0, rank: int = 0, world: int = 1
) -> list[tuple[int, int, Example]]:
    return list(islice(examples.walk(first, rank, world), count))


def as_source(paths: Iterable[Path]) -> dict[str, Row | str]:
    """What records of the same tars become: rows, or the kind of error."""
    found: dict[str, Row | str] = {}
    for item in open_source(SourceOptions(paths=tuple(map(str, paths))), note=lambda message: None):
        if isinstance(item, BadLine):
            found[item.where] = item.error.kind
            continue
        try:
            found[item.id or ""] = msgspec.msgpack.decode(row_of(item), type=Row)
        except RecordError as error:
            found[item.id or ""] = error.kind
    return found


def same(examples: ShardExamples, paths: list[Path]) -> None:
    """An epoch has what the source has, byte for byte."""
    records, opener = as_source(paths), Opener()
    rows = {name: row for name, row in records.items() if isinstance(row, Row)}
    epoch = [example for _, _, example in walked(examples, len(examples))]
    good = {example.name: example for example in epoch if example.problem is None}
    assert good.keys() == rows.keys() and len(epoch) == len(records)
    for name, example in good.items():
        assert example.captions == rows[name].captions and example.negatives == rows[name].negatives
        assert examples.read(example) == opener.read(rows[name].image)


@pytest.mark.parametrize("held", [1, 3_000, 1 << 20])
def test_a_sample_is_the_same_example_as_its_record(three: list[Path], held: int) -> None:
    same(made(*three, held=held), three)


def test_all_that_a_sample_can_say_is_read_alike(tmp_path: Path) -> None:
    said = {"uid": "own", "texts": ["x y", {"text": "no", "negative": True}], "text": "json text"}
    members = [
        *(("both.jpg", png(1)), ("both.txt", b"the caption"), ("both.json", json.dumps(said).encode())),
        *(("img2.png", png(2)), ("img2.json", b'{"caption": "as img2dataset has it"}')),
        *(
            ("packed.json", b'{"caption": 3}'),
            ("packed.txt.gz", __import__("gzip").compress(b"packed")),
            ("packed.png", png(3)),
        ),
        *(("bad.png", png(4)), ("bad.json", b"{")),
        *(("silent.png", png(5)), ("silent.cls", b"7")),
        *(("noimage.txt", b"words"),),
        *(("deep/er/x.y.crop.png", png(6)), ("deep/er/x.png", png(7)), ("deep/er/x.txt", "ünïcode".encode())),
        *(("./dot.PNG", png(8)), ("./dot.TXT", b"upper case")),
        *(("mask.seg.png", png(9)), ("mask.png", png(10)), ("mask.txt", b"two images")),
        *(("ignored.bin", b"\0" * 3000),),
        *((f"{'long/' * 60}name.png", png(11)), (f"{'long/' * 60}name.txt", b"long")),
    ]
    path = write_tar(tmp_path / "odd.tar", members)
    examples = made(path)
    same(examples, [path])
    kinds = Counter(e.problem.kind for _, _, e in walked(examples, len(examples)) if e.problem is not None)
    assert kinds == {"bad-sidecar": 1, "missing-text": 1, "image-missing": 1}


def test_the_fixtures_of_webdataset_are_read_alike(shared_data: Path) -> None:
    folder = shared_data / "refs" / "webdataset_fixtures"
    path = folder / "compressed.tar"
    found = walked(made(path), 3)
    assert {example.name for _, _, example in found} <= as_source([path]).keys()
    assert {example.problem.kind for _, _, example in found if example.problem} == {"image-missing"}
    for name in ("mpdata.tar", "tendata.tar"):
        with pytest.raises(RecordError, match="no sample that can be used"):
            made(folder / name)


def test_each_example_has_one_place_in_each_epoch_however_many_processes(three: list[Path]) -> None:
    examples = made(*three, held=3_000)
    names = {
        f"{path.stem}/{number:06}"
        for path, span in zip(three, ((0, 30), (30, 37), (37, 60)), strict=True)
        for number in range(*span)
    }
    for world in (1, 2, 3, 4, 7, 64):
        for epoch in (0, 1):
            found: list[tuple[int, int, Example]] = []
            for rank in range(world):
                mine = [p for p in range(60 * epoch, 60 * epoch + 60) if p % world == rank]
                if mine:
                    found += walked(examples, len(mine), mine[0], rank, world)
            assert sorted(position for position, _, _ in found) == list(range(60 * epoch, 60 * epoch + 60))
            assert {number for _, number, _ in found} == {epoch}
            assert Counter(example.name for _, _, example in found) == Counter(names)


def test_epochs_differ_and_seeds_do(three: list[Path]) -> None:
    def names(examples: ShardExamples, first: int) -> list[str]:
        return [example.name for _, _, example in walked(examples, 60, first)]

    examples = made(*three)
    assert len({tuple(names(examples, first)) for first in (0, 60, 120)}) == 3
    assert names(made(*three[::-1]), 0) == names(examples, 0) != names(made(*three, seed=1), 0)


@pytest.mark.parametrize("held", [2_000, 1 << 20])
@pytest.mark.parametrize("world", [1, 2])
def test_from_any_position_on_it_goes_as_it_would_have_gone(three: list[Path], held: int, world: int) -> None:
    examples = made(*three, held=held)
    whole = walked(examples, 150, 0, world - 1, world)
    for first in (1, 13, 59, 60, 61, 100):
        rest = [each for each in whole if each[0] >= first]
        found = walked(examples, len(rest), first, world - 1, world)
        assert [(p, e, x.name) for p, e, x in found] == [(p, e, x.name) for p, e, x in rest]
        assert all(examples.read(a[2]) == examples.read(b[2]) for a, b in zip(found, rest, strict=True))


def test_examples_are_mixed_and_no_more_wait_than_may(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "one.tar", pairs(0, 400))
    size = path.stat().st_size // 400
    order = [int(example.name[-6:]) for _, _, example in walked(made(path, held=50 * size), 400)]
    moved = [abs(place - number) for place, number in enumerate(order)]
    assert max(moved) <= 50 and sum(moved) / 400 > 10
    everything = [int(e.name[-6:]) for _, _, e in walked(made(path, held=1 << 30), 400)]
    assert max(abs(place - number) for place, number in enumerate(everything)) > 200


def test_what_is_larger_than_others_waits_on_disk(tmp_path: Path) -> None:
    members = pairs(0, 40)
    members[20] = ("000010.png", png(10, 700) + os.urandom(100_000))
    path = write_tar(tmp_path / "one.tar", members)
    examples = made(path, held=60_000)
    found = walked(examples, 40)
    assert [example.name for _, _, example in found if isinstance(example.image, str)] == ["one/000010"]
    same(examples, [path])


def test_a_resumed_run_reads_no_shard_that_it_is_past(three: list[Path]) -> None:
    examples = made(*three, held=2_000)  # one sample: shards come one after the other
    order = [example.name.partition("/")[0] for _, _, example in walked(examples, 60)]
    past = order.count(order[0])
    (three[0].parent / f"{order[0]}.tar").unlink()
    assert all(example.problem is None for _, _, example in walked(examples, 60 - past - 1, past + 1))
    assert all(example.problem is not None for _, _, example in walked(examples, past - 1))


def test_a_cut_off_shard_gives_what_it_holds(three: list[Path]) -> None:
    whole = three[0].read_bytes()
    three[0].write_bytes(whole[: len(whole) // 2 + 700])
    examples = made(*three)
    assert 5 < len(examples) - 30 < 30
    assert "a.tar is cut off" in examples.notices[0]
    assert all(example.problem is None for _, _, example in walked(examples, len(examples)))


def test_a_shard_that_is_gone_or_changed_is_a_problem_of_its_examples_only(three: list[Path]) -> None:
    examples = made(*three)
    three[0].unlink()
    three[1].write_bytes(b"no tar at all" * 100)
    found = walked(examples, 60)
    kinds = Counter((e.name.partition("/")[0], e.problem.kind if e.problem else "") for _, _, e in found)
    assert kinds == {("a", "shard-broken"): 30, ("b", "shard-broken"): 7, ("c", ""): 23}


def test_shards_without_anything_are_told(tmp_path: Path) -> None:
    for data in (b"", b"\0" * 10240, b"nonsense" * 1000):
        (tmp_path / "x.tar").write_bytes(data)
        with pytest.raises(RecordError, match=r"x\.tar has no sample"):
            made(tmp_path / "x.tar")
    with pytest.raises(ClipkitError, match="nothing to train on"):
        ShardExamples([Shard("a", "a.tar", 0, 0)], Opener(), 0)


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (os.environ["CLIPKIT_TEST_TRAP"],)


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trap = tmp_path / "trap"
    monkeypatch.setenv("CLIPKIT_TEST_TRAP", str(trap))
    evil = pickle.dumps(Hostile())
    names = ("pyd", "pkl", "pickle", "npy", "pth", "pt", "ten", "json.pyd", "mp")
    members = [("a.png", png(1)), ("a.txt", b"a caption"), *((f"a.{name}", evil) for name in names)]
    examples = made(write_tar(tmp_path / "evil.tar", members))
    ((_, _, example),) = walked(examples, 1)
    assert example.problem is None and examples.read(example) == png(1)
    assert not trap.exists()
    pickle.loads(evil)  # it does bite
    assert trap.exists()


@pytest.mark.parametrize(
    "name", ["pipe:touch trap; cat a.tar", "http://127.0.0.1:9/a.tar", "s3://bucket/a.tar", "file:///a.tar"]
)
def test_no_command_and_no_address_is_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        shard_paths([name])
    examples = ShardExamples([Shard("a", name, 2, 2000)], Opener(), 0)
    assert {example.problem.kind for _, _, example in walked(examples, 2) if example.problem} == {"shard-broken"}
    assert not (tmp_path / "trap").exists()


def test_a_sparse_member_cannot_claim_memory(tmp_path: Path) -> None:
    """A GNU sparse file of 512 bytes on disk that would unfold to 8 GB, called as a member that is wanted."""
    path = write_tar(tmp_path / "s.tar", [*pairs(0, 1), ("000000.png", bytes(512)), *pairs(1, 1)])
    data = bytearray(path.read_bytes())
    at = data.rindex(b"000000.png") // 512 * 512
    header = bytearray(data[at : at + 512])
    header[156:157] = b"S"
    header[345:512] = bytes(167)
    header[386:398], header[398:410] = b"00000000000\0", b"00000001000\0"
    header[483:495] = b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data[at : at + 512] = header
    path.write_bytes(bytes(data))
    with tarfile.open(path) as tar:
        assert any(member.issparse() and member.size == 0o77777777777 for member in tar)
    found = walked(made(path), 2)
    assert {example.problem.kind for _, _, example in found if example.problem} == {"shard-broken"}


def test_a_name_that_begins_as_gzip_is_not_unpacked(tmp_path: Path) -> None:
    members = [("\x1f\x0b.png", png(1))]
    path = write_tar(tmp_path / "g.tar", [*members, ("\x1f\x0b.txt", b"a caption")])
    data = bytearray(path.read_bytes())
    for at in (i for i in range(0, len(data), 512) if data[i : i + 2] == b"\x1f\x0b"):
        data[at : at + 3] = b"\x1f\x8b\x08"
        data[at + 148 : at + 156] = b" " * 8
        data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])
    path.write_bytes(bytes(data))
    try:
        examples = made(path)
    except RecordError:
        return
    assert all(example.problem for _, _, example in walked(examples, len(examples)))


def test_an_image_over_the_limit_is_left_to_the_opener(tmp_path: Path) -> None:
    from clipkit.images.limits import Limits

    path = write_tar(tmp_path / "big.tar", [("a.png", bytes(5000)), ("a.txt", b"x")])
    shards = [shard_of(record) for record in shard_records([str(path)])]
    examples = ShardExamples(shards, Opener(limits=Limits(max_bytes=1000)), 0)
    ((_, _, example),) = walked(examples, 1)
    with pytest.raises(RecordError) as caught:
        examples.read(example)
    assert caught.value.kind == "image-too-large"


def test_a_packs_manifest_saves_reading_headers(tmp_path: Path, in_process: object) -> None:
    lines = []
    for number in range(12):
        (tmp_path / f"{number}.png").write_bytes(png(number))
        lines.append(json.dumps({"id": f"i{number}", "image": f"{number}.png", "text": f"text {number}"}))
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    assert in_process("pack", "in.jsonl", "-o", "pack", "--max-count", "5").code == 0  # type: ignore[operator]
    paths = shard_paths([str(tmp_path / "pack")])
    assert paths is not None and [Path(path).name for path in paths] == ["00000.tar", "00001.tar", "00002.tar"]
    shards = [shard_of(record) for record in shard_records(paths)]
    assert [shard.count for shard in shards] == [5, 5, 2]
    same(ShardExamples(shards, Opener(), 0), [Path(path) for path in paths])
    manifest = json.loads((tmp_path / "pack" / "clipkit.json").read_text())
    manifest["shards"][0]["count"] = 3
    (tmp_path / "pack" / "clipkit.json").write_text(json.dumps(manifest))
    assert shard_of(next(shard_records(paths))).count == 3  # it was believed
    with open(paths[0], "ab") as file:
        file.write(bytes(512))
    assert shard_of(next(shard_records(paths))).count == 5  # another size: it is not


def test_which_sources_are_shards(three: list[Path], tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text("{}")
    photos = tmp_path.parent / "photos"
    photos.mkdir(exist_ok=True)
    names = [str(path) for path in three]
    assert shard_paths([str(tmp_path / "{a,b,c}.tar")]) == shard_paths([str(tmp_path / "*.tar")]) == names
    assert shard_paths([str(tmp_path)]) == names
    assert shard_paths([*names, str(tmp_path / "list.jsonl")]) is None
    assert shard_paths([str(photos)]) is None
    (tmp_path / "b.jpg").write_bytes(b"")
    assert shard_paths([str(tmp_path)]) is None  # its pictures would be left out
    assert shard_paths(["-"]) is None and shard_paths([]) is None
    assert [record.id for record in shard_records(names)] == ["a", "b", "c"]
    assert isinstance(next(shard_records(names)), Record)
