"""The feature store: what is written comes back by id, other tools can read it, and nothing half-made gets its name."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from clipkit.errors import ClipkitError, RecordError, UsageError
from clipkit.features import writer
from clipkit.features.inline import pack, unit
from clipkit.features.store import Place, Store, describe_identity
from clipkit.features.writer import Layout, StoreSink
from clipkit.models.base import Identity, Preprocess
from clipkit.stream.record import Record

PREPROCESS = Preprocess((8, 8), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
IDENTITY = Identity("tiny", "ab" * 32, PREPROCESS, "gelu", 32)
OTHER = Identity("other", "cd" * 32, PREPROCESS, "gelu", 32)
DIMS = {"image": 32, "text": 32, "backbone": 48}


def layout() -> Layout:
    return Layout(describe_identity(IDENTITY), DIMS)


def vector(seed: int, dim: int = 32) -> np.ndarray:
    """A unit vector f32, rounded to f16."""
    row = np.random.default_rng(seed).normal(size=dim)
    return (row / np.linalg.norm(row)).astype(np.float16)


def line(number: int, image: bool = True, text: bool = True, **more: object) -> bytes:
    fields: dict[str, object] = {"id": f"r{number}", **more}
    emb: dict[str, object] = {}
    if image:
        fields["image"] = f"{number}.jpg"
        emb |= {"image": pack(vector(number)), "backbone": pack(3 * vector(number, 48))}
    if text:
        fields["text"] = f"caption {number} é"
        emb["text"] = pack(vector(-number - 1 & 0xFFFF))
    return json.dumps({**fields, "emb": emb}).encode()


def make(folder: Path, lines: list[tuple[bytes, str]]) -> Store:
    sink = StoreSink(folder, layout)
    for data, origin in lines:
        sink.write(data, origin)
    sink.flush()
    sink.commit()
    return Store(folder)


def several(count: int = 40, origin: str = "") -> list[tuple[bytes, str]]:
    return [(line(n, image=n % 3 != 1, text=n % 3 != 2), origin) for n in range(count)]


def test_rows_come_back_by_id_from_whatever_part(tmp_path: Path) -> None:
    lines = [(line(n), f"/data/shard{n // 7}.tar") for n in np.random.default_rng(0).permutation(40)]
    store = make(tmp_path / "s", lines)
    assert len(store) == 40
    assert store.outputs == ("image", "text", "backbone")
    wanted = [f"r{n}" for n in (39, 0, 17, 17)]
    got = store.features(wanted)
    assert got.dtype == np.float32
    assert np.array_equal(got, unit(np.stack([vector(n) for n in (39, 0, 17, 17)])))
    assert np.allclose(np.linalg.norm(got, axis=1), 1, atol=1e-7)
    behind = store.features(["r5"], "backbone")
    assert np.array_equal(behind, (3 * vector(5, 48))[None].astype(np.float32))
    blocks = [(ids, rows) for ids, rows in store.blocks("text", rows=3) if ids]
    assert sorted(name for ids, _ in blocks for name in ids) == sorted(f"r{n}" for n in range(40))
    assert all(len(ids) == len(rows) <= 3 for ids, rows in blocks)
    assert all(np.array_equal(rows, store.features(ids, "text")) for ids, rows in blocks)


def test_a_part_for_each_input_file_and_no_part_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PART_ROWS", 4)
    monkeypatch.setattr(writer, "_GROUP_ROWS", 3)
    origins = ["/x/a.tar"] * 3 + ["/x/b.tar"] * 9 + ["/x/a.tar"]
    store = make(tmp_path / "s", [(line(n), origin) for n, origin in enumerate(origins)])
    manifest = json.loads((tmp_path / "s" / "clipkit.json").read_text())
    assert [(p["rows"], p["source"]) for p in manifest["parts"]] == [
        (3, "a.tar"), (4, "b.tar"), (4, "b.tar"), (1, "b.tar"), (1, "a.tar")
    ]  # fmt: skip
    assert store.find("r8") == Place(2, 1)
    assert store.ids(3) == ["r11"]
    assert manifest["counts"] == {"rows": 13, "image": 13, "text": 13, "backbone": 13, "failed": 0}
    assert str(tmp_path) not in (tmp_path / "s" / "clipkit.json").read_text()


def test_what_is_missing_keeps_its_row_and_is_said_to_be_missing(tmp_path: Path) -> None:
    store = make(tmp_path / "s", several())
    assert np.array_equal(store.features(["r0", "r2"]), unit(np.stack([vector(0), vector(2)])))
    with pytest.raises(RecordError, match="no image feature of 'r1'") as caught:
        store.features(["r0", "r1"])
    assert caught.value.kind == "no-feature"
    with pytest.raises(RecordError, match="no text feature of 'r2'"):
        store.features(["r2"], "text")
    with pytest.raises(RecordError, match="no record 'nobody'"):
        store.features(["nobody"])
    image_ids = [name for ids, _ in store.blocks("image") for name in ids]
    assert image_ids == [f"r{n}" for n in range(40) if n % 3 != 1]
    metadata = pq.read_table(tmp_path / "s/metadata/metadata_0.parquet")
    rows = np.load(tmp_path / "s/img_emb/img_emb_0.npy")
    assert np.isfinite(rows).all()
    assert metadata["has_image"].to_pylist() == rows.any(axis=1).tolist() == [n % 3 != 1 for n in range(40)]


def test_an_output_that_no_record_has_is_left_out(tmp_path: Path) -> None:
    store = make(tmp_path / "s", [(line(n, text=False), "") for n in range(3)])
    assert store.outputs == ("image", "backbone")
    assert not (tmp_path / "s/text_emb").exists()
    with pytest.raises(ClipkitError, match="no text features, only image, backbone"):
        store.features(["r0"], "text")


def test_clip_retrieval_and_autofaiss_can_read_it(tmp_path: Path) -> None:
    make(tmp_path / "s", [(line(n), "" if n < 30 else "b") for n in range(40)])
    for part, rows in ((0, range(30)), (1, range(30, 40))):
        image = np.load(tmp_path / f"s/img_emb/img_emb_{part}.npy")
        text = np.load(tmp_path / f"s/text_emb/text_emb_{part}.npy")
        assert (image.dtype, image.shape, text.shape) == (np.dtype("<f2"), (len(rows), 32), (len(rows), 32))
        assert np.array_equal(image, np.stack([vector(n) for n in rows]))
        table = pq.read_table(tmp_path / f"s/metadata/metadata_{part}.parquet")
        assert table["id"].to_pylist() == [f"r{n}" for n in rows]
        assert table["image_path"].to_pylist() == [f"{n}.jpg" for n in rows]
        assert table["caption"].to_pylist() == [f"caption {n} é" for n in rows]


def test_embedding_reader_joins_it_with_its_metadata(tmp_path: Path) -> None:
    reader = pytest.importorskip("embedding_reader", reason="embedding-reader is not installed")
    make(tmp_path / "s", [(line(n), f"{n // 15}") for n in range(40)])
    read = reader.EmbeddingReader(
        embeddings_folder=str(tmp_path / "s/img_emb"),
        metadata_folder=str(tmp_path / "s/metadata"),
        file_format="parquet_npy",
        meta_columns=["id", "image_path"],
    )
    assert (read.count, read.dimension) == (40, 32)
    seen = {}
    for rows, meta in read(batch_size=7, show_progress=False):
        seen |= dict(zip(meta["id"], rows, strict=True))
    assert all(np.array_equal(seen[f"r{n}"], vector(n)) for n in range(40))


def test_the_records_come_back_without_their_vectors(tmp_path: Path) -> None:
    given = line(1, score=json.loads("1.10"), deep={"a": [1, None]}, via={"emb": "embed/tiny@1"})
    store = make(tmp_path / "s", [(given, "")])
    (back,) = store.records()
    expected = json.loads(given)
    del expected["emb"]
    assert json.loads(back) == expected


def test_other_entries_of_emb_stay_in_the_record(tmp_path: Path) -> None:
    record = Record.parse(line(1, text=False))
    record["emb"] = {**record["emb"], "audio": "elsewhere#0:1"}
    store = make(tmp_path / "s", [(record.encode(), "")])
    assert json.loads(next(store.records()))["emb"] == {"audio": "elsewhere#0:1"}


def test_failed_records_are_counted_and_left_out(tmp_path: Path) -> None:
    bad = json.dumps({"id": "bad", "error": {"verb": "embed", "type": "image-missing", "message": "no"}}).encode()
    store = make(tmp_path / "s", [(line(0), "a"), (bad, "a"), (bad, "b"), (line(1), "b")])
    assert [store.ids(0), store.ids(1)] == [["r0"], ["r1"]]
    assert json.loads((tmp_path / "s/clipkit.json").read_text())["counts"]["failed"] == 2


def test_an_empty_run_gives_an_empty_store(tmp_path: Path) -> None:
    store = make(tmp_path / "s", [])
    assert (len(store), list(store.records()), store.find("x"), store.outputs) == (0, [], None, ())
    with pytest.raises(ClipkitError, match="is empty"):
        store.dim("image")


def test_a_reference_is_checked_against_the_id_at_its_row(tmp_path: Path) -> None:
    store = make(tmp_path / "s", [(line(n), f"{n // 3}") for n in range(6)])
    assert store.resolve("s#1:2", "r5") == Place(1, 2)
    assert np.array_equal(store.rows([Place(1, 2)]), store.features(["r5"]))
    with pytest.raises(RecordError, match="is 'r5', not 'r4'"):
        store.resolve("odd#name#1:2", "r4")
    for reference in ("s#1:3", "s#2:0", "s#-1:0", "s#1", "s", "s#a:b", ""):
        with pytest.raises(RecordError):
            store.resolve(reference, "r5")


def test_the_same_lines_give_the_same_bytes(tmp_path: Path) -> None:
    lines = several(30, "a") + [(line(100 + n), "b") for n in range(9)]
    for name in ("one", "two"):
        make(tmp_path / name, lines)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) == 1 + 2 * 4
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


# Renaming, replacing, refusing


def test_nothing_has_the_name_before_all_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    sink = StoreSink(folder, layout)
    sink.write(line(0), "")
    assert not folder.exists()
    sink.abort()
    assert list(tmp_path.iterdir()) == []
    make(folder, several(5))
    before = (folder / "clipkit.json").read_bytes()
    sink = StoreSink(folder, layout)
    sink.write(line(0), "")
    assert (folder / "clipkit.json").read_bytes() == before
    sink.abort()
    assert len(Store(folder)) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_store_is_replaced_and_leftovers_of_a_kill_are_cleared(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    make(folder, several(9))
    killed = StoreSink(folder, layout)
    killed.write(line(3), "")
    shutil.copytree(tmp_path / "s.part", tmp_path / "kept")
    killed.abort()
    os.rename(tmp_path / "kept", tmp_path / "s.part")  # as a kill leaves it
    with pytest.raises(ClipkitError, match="holds unfinished features"):
        Store(tmp_path / "s.part")
    assert len(make(folder, several(4))) == 4
    os.rename(folder, tmp_path / "s.old")  # killed between the two renames
    sink = StoreSink(folder, layout)
    sink.write(line(0), "")
    assert len(Store(folder)) == 4
    sink.commit()
    assert len(Store(folder)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    make(photos, several(2))  # empty: fine
    shutil.rmtree(photos)
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"precious")
    with pytest.raises(UsageError, match="not a feature store"):
        StoreSink(photos, layout)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="not a feature store"):
        StoreSink(tmp_path / "file", layout)
    for suffix in (".part", ".old"):
        (tmp_path / f"s{suffix}").mkdir()
        (tmp_path / f"s{suffix}" / "mine").write_text("precious")
        with pytest.raises(UsageError, match=f"s{suffix} exists and is not a feature store"):
            StoreSink(tmp_path / "s", layout)
        shutil.rmtree(tmp_path / f"s{suffix}")
    with pytest.raises(UsageError, match="no folder"):
        StoreSink(tmp_path / "absent" / "s", layout)
    assert (photos / "a.jpg").read_bytes() == b"precious"


# Refusals and damage


def test_features_of_another_model_are_refused_naming_both(tmp_path: Path) -> None:
    store = make(tmp_path / "s", several(3))
    store.require(IDENTITY)
    store.require(Identity("alias", IDENTITY.weights, PREPROCESS, "gelu", 32))  # another name for the same weights
    with pytest.raises(ClipkitError) as caught:
        store.require(OTHER)
    assert str(IDENTITY) in caught.value.message
    assert str(OTHER) in caught.value.message


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"format": 2, "kind": "features", "anything": 1}, "newer clipkit"),
        ({"format": 1, "kind": "adapter"}, "holds adapter, not features"),
        ({"format": 1, "kind": "features"}, "damaged"),
        ({"format": 1, "kind": "features", "model": {}, "outputs": {}, "parts": []}, "damaged"),
        ([1], "damaged"),
        (None, "not a feature store"),
    ],
)
def test_a_manifest_that_is_newer_damaged_or_absent(tmp_path: Path, manifest: object, message: str) -> None:
    if manifest is not None:
        (tmp_path / "clipkit.json").write_text(json.dumps(manifest))
    with pytest.raises(ClipkitError, match=message):
        Store(tmp_path)


def spoil(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "cut":
        path.write_bytes(data[: len(data) - 100])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(len(data)))
    elif how == "gone":
        path.unlink()


@pytest.mark.parametrize("how", ["cut", "empty", "noise", "gone"])
@pytest.mark.parametrize("name", ["img_emb/img_emb_0.npy", "metadata/metadata_0.parquet"])
def test_a_damaged_part_is_an_error_that_names_it(tmp_path: Path, name: str, how: str) -> None:
    make(tmp_path / "s", several(200))
    spoil(tmp_path / "s" / name, how)
    with pytest.raises(ClipkitError, match=r"(damaged|missing)") as caught:
        Store(tmp_path / "s").features(["r0"])
    assert name in caught.value.message
    assert "clipkit embed" in str(caught.value.hint)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    make(tmp_path / "s", several(3))
    np.save(tmp_path / "s/img_emb/img_emb_0.npy", np.array([{}, {}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(ClipkitError, match="damaged"):
        Store(tmp_path / "s").features(["r0"])


def test_rows_of_another_part_are_not_taken_for_this_one(tmp_path: Path) -> None:
    make(tmp_path / "s", [(line(n), "a" if n < 5 else "b") for n in range(12)])
    shutil.copy(tmp_path / "s/img_emb/img_emb_1.npy", tmp_path / "s/img_emb/img_emb_0.npy")
    with pytest.raises(ClipkitError, match="damaged"):
        Store(tmp_path / "s").features(["r0"])


def test_memory_does_not_grow_with_the_number_of_records(tmp_path: Path) -> None:
    import tracemalloc

    def peak(count: int) -> int:
        data = line(0)
        tracemalloc.start()
        sink = StoreSink(tmp_path / f"s{count}", layout)
        for _ in range(count):
            sink.write(data, "")
        sink.commit()
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(10)
    assert peak(22_000) < 1.2 * peak(7_000)
