"""Batches: the same from any place on, with however many threads; what cannot be read gives way."""

from __future__ import annotations

import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from clipkit.errors import ClipkitError
from clipkit.features.views import augmented
from clipkit.images.decode import decode
from clipkit.images.opener import Opener
from clipkit.images.transform import apply
from clipkit.models.base import Preprocess
from clipkit.stream.record import Record
from clipkit.stream.spool import Rows
from clipkit.training.examples import Examples, RecordExamples, row_of
from clipkit.training.loader import Batch, Loader
from clipkit.training.settings import Settings
from clipkit.training.shards import ShardExamples, shard_of, shard_records
from tests.training.students import encoder

COUNT = 40


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    for number in range(COUNT):
        coarse = Image.fromarray(draw.integers(0, 256, (4, 6, 3), np.uint8))
        coarse.resize((50, 30 + number), Image.Resampling.BICUBIC).save(
            tmp_path / f"{number}.{'jpg' if number % 2 else 'png'}"
        )
    return tmp_path


@pytest.fixture
def open_rows() -> Iterator[Rows]:
    rows = Rows()
    yield rows
    rows.close()


def examples(rows: Rows, folder: Path, count: int = COUNT, **more: Any) -> RecordExamples:
    for number in range(count):
        image = f"{number}.{'jpg' if number % 2 else 'png'}"
        record = Record({"id": f"n{number}", "image": image, "text": f"number {number}", **more})
        rows.append(f"n{number}", row_of(record))
    return RecordExamples(rows, Opener(folder), 0)


def batches(made: Examples, count: int, settings: Settings = Settings(), **options: Any) -> list[Batch]:
    loader = Loader(made, encoder(), settings, **{"size": 8, **options})
    try:
        return list(islice(loader, count))
    finally:
        loader.close()


def equal(one: Batch, other: Batch) -> bool:
    """Bit for bit."""
    for field in fields(Batch):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, torch.Tensor) and isinstance(theirs, torch.Tensor):
            if mine.dtype != theirs.dtype or not torch.equal(mine, theirs):
                return False
        elif mine != theirs:
            return False
    return True


def test_a_batch_is_what_the_examples_say(open_rows: Rows, pictures: Path) -> None:
    made = examples(open_rows, pictures)
    model, settings = encoder(), Settings(area=0.6)
    walk = made.walk(0, 0, 1)
    for number, batch in enumerate(batches(made, 7, settings)):
        taken = list(islice(walk, 8))
        assert batch.names == [example.name for _, _, example in taken]
        assert batch.texts == [f"number {name[1:]}" for name in batch.names]
        assert batch.after == (number + 1) * 8 and batch.failed == {}
        assert torch.equal(batch.tokens, model.tokenize(batch.texts)[:, None])
        assert batch.present.shape == (8, 1) and batch.present.all()
        assert batch.negatives is None and batch.teacher_pixels is None
        for (_, epoch, example), pixels in zip(taken, batch.pixels, strict=True):
            view = augmented(example.name, epoch + 1, 0, (32, 32), (0.6, 1.0), mirrors=False)
            picture = view.make(decode(made.read(example), fit=42))  # 32 / sqrt(0.6), rounded up
            assert np.array_equal(pixels.numpy(), model.preprocess(picture))


def test_with_an_area_of_one_a_picture_is_as_in_use(open_rows: Rows, pictures: Path) -> None:
    made = examples(open_rows, pictures)
    for batch in batches(made, 2, Settings(area=1.0)):
        for name, pixels in zip(batch.names, batch.pixels, strict=True):
            path = next(pictures.glob(f"{name[1:]}.*"))
            assert np.array_equal(pixels.numpy(), encoder().preprocess(decode(path.read_bytes(), fit=32)))


def test_pictures_are_mirrored_on_request_only_and_then_half_of_them(open_rows: Rows, pictures: Path) -> None:
    made = examples(open_rows, pictures)
    for area in (1.0, 0.9):
        plain = batches(made, 10, Settings(area=area))
        mirrored = batches(made, 10, Settings(area=area, mirror=True))
        same = sum(
            torch.equal(a, b)
            for x, y in zip(plain, mirrored, strict=True)
            for a, b in zip(x.pixels, y.pixels, strict=True)
        )
        assert 20 <= same <= 60
        turned = [
            (a - b.flip(-1)).abs().mean() < 0.3 * (a - b).abs().mean()
            for x, y in zip(plain, mirrored, strict=True)
            for a, b in zip(x.pixels, y.pixels, strict=True)
            if not torch.equal(a, b)
        ]
        assert len(turned) == 80 - same and all(turned)


@pytest.mark.parametrize("steps", [1, 10_000])  # with the latter pictures are kept
def test_from_any_batch_on_it_goes_as_it_would_have_gone(open_rows: Rows, pictures: Path, steps: int) -> None:
    made = examples(open_rows, pictures)
    settings = Settings(steps=steps, batch_size=8)
    whole = batches(made, 12, settings)
    for done in (1, 5, 9):
        rest = batches(made, 12 - done, settings, first=whole[done - 1].after)
        assert all(equal(one, other) for one, other in zip(whole[done:], rest, strict=True))


def test_batches_of_shards_go_on_as_they_would_have_gone(pictures: Path) -> None:
    for number in range(2):
        with tarfile.open(pictures / f"{number}.tar", "w") as tar:
            for path in sorted(pictures.glob(f"{number}*.[jp]*")):
                (pictures / f"{path.stem}.txt").write_text(f"picture {path.stem}")
                tar.add(path, path.name)
                tar.add(pictures / f"{path.stem}.txt", f"{path.stem}.txt")
    shards = [shard_of(record) for record in shard_records([str(pictures / "0.tar"), str(pictures / "1.tar")])]
    made = ShardExamples(shards, Opener(), 0)
    settings = Settings(steps=100, batch_size=4)
    whole = batches(made, 9, settings, size=4)
    for done in (1, 4):
        rest = batches(made, 9 - done, settings, size=4, first=whole[done - 1].after)
        assert all(equal(one, other) for one, other in zip(whole[done:], rest, strict=True))
    assert {batch.texts[0].startswith("picture ") for batch in whole} == {True}


def test_kept_pictures_and_threads_change_nothing(
    open_rows: Rows, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = examples(open_rows, pictures)
    kept = batches(made, 15, Settings(steps=10_000))
    monkeypatch.setattr("clipkit.training.loader.available_cores", lambda: 1)
    monkeypatch.setattr("clipkit.training.loader._AHEAD_BYTES", 1)
    read = []
    monkeypatch.setattr(made, "read", lambda example: read.append(example.name) or type(made).read(made, example))
    plain = batches(made, 15, Settings(steps=1, batch_size=8))
    assert all(equal(one, other) for one, other in zip(kept, plain, strict=True))
    assert len(read) >= 15 * 8
    read.clear()
    batches(made, 15, Settings(steps=10_000))
    assert len(read) == COUNT


def test_no_more_is_kept_than_there_is_room_for(
    open_rows: Rows, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = examples(open_rows, pictures)
    expected = batches(made, 15, Settings(steps=10_000))
    monkeypatch.setattr("clipkit.training.loader._KEPT_BYTES", 50 * 60 * 4 * 5)
    loader = Loader(made, encoder(), Settings(steps=10_000), size=8)
    found = list(islice(loader, 15))
    loader.close()
    assert all(equal(one, other) for one, other in zip(expected, found, strict=True))
    assert 3 <= len(loader._pictures._kept) <= 10


@pytest.mark.parametrize("world", [2, 4])
def test_processes_together_have_the_batch_of_one(open_rows: Rows, pictures: Path, world: int) -> None:
    made = examples(open_rows, pictures)
    alone = batches(made, 6)
    ranks = [batches(made, 6, size=8 // world, rank=rank, world=world) for rank in range(world)]
    for number, whole in enumerate(alone):
        parts = {
            name: pixels for rank in ranks for name, pixels in zip(rank[number].names, rank[number].pixels, strict=True)
        }
        assert parts.keys() == set(whole.names)
        assert all(torch.equal(parts[name], pixels) for name, pixels in zip(whole.names, whole.pixels, strict=True))


def test_what_cannot_be_used_gives_way_to_the_next(open_rows: Rows, pictures: Path) -> None:
    (pictures / "3.jpg").write_bytes(b"no picture")
    (pictures / "8.png").write_bytes((pictures / "8.png").read_bytes()[:200])
    (pictures / "10.png").unlink()
    made = examples(open_rows, pictures)
    found = batches(made, 10)
    failed = [dict(batch.failed) for batch in found]
    everything = {name: kind for some in failed for name, kind in some.items()}
    assert everything == {"n3": "image-format", "n8": "image-broken", "n10": "image-missing"}
    good = [example.name for _, _, example in islice(made.walk(0, 0, 1), 100) if example.name not in everything]
    assert [name for batch in found for name in batch.names] == good[:80]
    rest = batches(made, 4, first=found[5].after)
    assert all(equal(one, other) for one, other in zip(found[6:], rest, strict=True))


def test_a_caption_of_no_weight_is_a_failure_that_costs_no_decoding(
    open_rows: Rows, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = examples(open_rows, pictures)
    monkeypatch.setattr(made, "read", lambda example: pytest.fail("it was opened"))
    with pytest.raises(ClipkitError, match="no example of a whole epoch can be used"):
        batches(made, 1, Settings(weights={"coca": 1.0}))


@pytest.mark.parametrize("world", [1, 3])
def test_nothing_but_bad_pictures_ends(open_rows: Rows, tmp_path: Path, world: int) -> None:
    made = examples(open_rows, tmp_path)
    with pytest.raises(ClipkitError, match="no example of a whole epoch can be used"):
        batches(made, 1, world=world)


def test_several_captions_and_negatives_have_places(open_rows: Rows, pictures: Path) -> None:
    texts = [{"text": "other words", "source": "coca"}, {"text": "a lie", "source": "hq", "negative": True}]
    made = examples(open_rows, pictures, texts=texts)
    settings = Settings(prefixes={"coca": "machine:"})
    (batch,) = batches(made, 1, settings, captions=3, negatives=2)
    model = encoder()
    assert batch.tokens.shape == (8, 3, 12) and batch.present.tolist() == [[True, True, False]] * 8
    assert torch.equal(batch.tokens[:, 0], model.tokenize(batch.texts))
    assert torch.equal(batch.tokens[:, 1], model.tokenize(["machine: other words"] * 8))
    assert not batch.tokens[:, 2].any()
    assert batch.negatives is not None and batch.negatives_present is not None
    assert batch.negatives_present.tolist() == [[True, False]] * 8
    assert torch.equal(batch.negatives[:, 0], model.tokenize(["a lie"] * 8))


def test_a_teacher_sees_the_same_part_in_its_own_way(open_rows: Rows, pictures: Path) -> None:
    made = examples(open_rows, pictures)
    teacher = Preprocess((16, 24), (0.5, 0.5, 0.5), (0.2, 0.3, 0.4), resize_mode="squash")
    settings = Settings(area=0.5, mirror=True)
    (batch,) = batches(made, 1, settings, teacher=teacher)
    assert batch.teacher_pixels is not None and batch.teacher_pixels.shape == (8, 3, 16, 24)
    for name, pixels in zip(batch.names, batch.teacher_pixels, strict=True):
        path = next(pictures.glob(f"{name[1:]}.*"))
        view = augmented(name, 1, 0, (16, 24), (0.5, 1.0))
        assert np.array_equal(pixels.numpy(), apply(teacher, view.make(decode(path.read_bytes(), fit=46))))
    assert batches(made, 1, settings, teacher=encoder().identity.preprocess)[0].teacher_pixels is None


def test_who_closes_waits_for_nobody(open_rows: Rows, pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = examples(open_rows, pictures)
    stuck = threading.Event()
    loader = Loader(made, encoder(), Settings(), size=8)
    next(iter(loader))
    monkeypatch.setattr(made, "read", lambda example: stuck.wait(60) and b"")
    loader.close()  # comes back while threads are stuck
    stuck.set()


def test_an_upright_picture_is_learned_from(open_rows: Rows, tmp_path: Path) -> None:
    """EXIF says how a photo is held; training sees it as every other verb does."""
    draw = np.random.default_rng(1)
    upright = Image.fromarray(draw.integers(0, 256, (40, 60, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = io.BytesIO()
    upright.transpose(Image.Transpose.ROTATE_90).save(data, "PNG", exif=exif)
    (tmp_path / "0.png").write_bytes(data.getvalue())
    (batch,) = batches(examples(open_rows, tmp_path, 1), 1, Settings(area=1.0), size=1)
    expected = encoder().preprocess(ImageOps.exif_transpose(Image.open(data)).convert("RGB"))
    assert np.array_equal(batch.pixels[0].numpy(), expected)
