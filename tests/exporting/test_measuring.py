"""What is measured in a process of its own is what is measured here, and nobody else's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipkit.errors import ClipkitError, RecordError
from clipkit.exporting import measuring, samples
from clipkit.exporting.base import Wish
from clipkit.exporting.measuring import Stored, Subject, measure, measure_apart
from clipkit.exporting.samples import Samples
from clipkit.images.opener import Opener
from clipkit.models.load import load
from clipkit.stream.record import Record
from clipkit.stream.sources import BadLine
from tests.exporting.conftest import pictures

SOURCE = Subject("lite", "onnx", Wish(towers=("image",)), towers=("image",), also=("text",))


@pytest.fixture(scope="module")
def few() -> Samples:
    return Samples(pictures(3), ["a cat", "ein Löwe 🦁", ""], "blots")


def test_apart_is_as_here_and_owes_nothing_to_its_parent(few: Samples, tmp_path: Path) -> None:
    here = measure(lambda: load("lite"), few, ("image",), ("text",))
    ballast = np.ones(60_000_000)  # 480 MB: what ru_maxrss of a child would begin with
    apart = measure_apart(SOURCE, measuring.save(few, tmp_path / "samples"), tmp_path)
    assert ballast.sum() == 60_000_000
    for tower in ("image", "text"):
        np.testing.assert_array_equal(apart.rows[tower], here.rows[tower])
    assert (apart.identity, apart.scale, apart.bias) == (here.identity, here.scale, here.bias)
    assert set(apart.costs) >= {"load_s", "image_ms", "images_per_s"}
    assert not {"text_ms", "texts_per_s"} & set(apart.costs), "the costs of a tower that isn't shipped"
    assert all(value > 0 for value in apart.costs.values())
    if "memory_mb" in apart.costs:
        assert 20 < apart.costs["memory_mb"] < 400


def test_a_failure_there_is_one_line_here(few: Samples, tmp_path: Path) -> None:
    stored = measuring.save(few, tmp_path / "samples")
    nowhere = Subject("lite", "onnx", Wish(towers=("image",)), str(tmp_path), ("image",))
    with pytest.raises(ClipkitError) as caught:
        measure_apart(nowhere, stored, tmp_path)
    assert caught.value.message.startswith("the export cannot be measured: cannot read ")
    assert "\n" not in caught.value.message


def test_pictures_pass_as_they_are(few: Samples, tmp_path: Path) -> None:
    back = Stored(measuring.save(few, tmp_path / "samples"))
    assert len(back) == 3
    for was, now in zip(few.pictures, back, strict=True):
        assert now.mode == "RGB" and now.tobytes() == was.tobytes() and now.size == was.size


def test_memory_is_the_peak() -> None:
    if measuring.peak_memory() is None:
        pytest.skip("nothing here says it")
    held = np.ones(300_000_000 // 8)
    assert held.nbytes
    del held
    assert (measuring.peak_memory() or 0) >= 300_000_000


def test_one_input_alone_is_run_alone(few: Samples) -> None:
    """A backend that pads to its batch would be eight times slower than a picture is."""
    encoder = load("lite")
    seen: list[int] = []
    run = encoder.encode_images

    def encode_images(batch: Any, **more: Any) -> Any:
        seen.append(encoder.batch_size)
        return run(batch, **more)

    encoder.encode_images = encode_images  # type: ignore[method-assign]
    measure(lambda: encoder, few, ("image",))
    assert seen[:2] == [8, 8] and seen.count(1) == measuring._ALONE + 2 and encoder.batch_size == 8


def test_speed_is_that_of_full_batches_of_what_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded late counts as loading, and a last batch that a backend fills up doesn't count."""
    clock = [0.0]
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: clock[0])
    encoder: Any = load("lite")
    asked: set[str] = set()

    def run(tower: str, count: int) -> np.ndarray:
        clock[0] += 100.0 * (tower not in asked) + 0.5 * encoder.batch_size  # loads when it is asked; pads
        asked.add(tower)
        return np.ones((count, 4), np.float32)

    encoder.encode_images = lambda batch, **more: (run("image", len(batch)), None)
    encoder.encode_texts = lambda texts: run("text", len(texts))
    nine = Samples(pictures(1) * 9, ["a"] * 17, "nine")
    costs = measure(lambda: encoder, nine, ("image", "text")).costs
    assert costs["load_s"] == pytest.approx(208.0)
    assert costs["images_per_s"] == costs["texts_per_s"] == pytest.approx(2.0)
    assert costs["image_ms"] == costs["text_ms"] == pytest.approx(500.0)
    few = Samples(pictures(3), ["a"], "few")
    assert measure(lambda: encoder, few, ("image",)).costs["images_per_s"] == pytest.approx(3 / 4)


def test_what_comes_along_is_always_the_same() -> None:
    first, second = samples.carried(), samples.carried()
    assert [p.tobytes() for p in first.pictures] == [p.tobytes() for p in second.pictures]
    assert len(first.pictures) == 48 and len(set(first.texts)) == len(first.texts) >= 100
    assert {picture.mode for picture in first.pictures} == {"RGB"}
    assert len({picture.size for picture in first.pictures}) > 40, "crops of many sizes and shapes"


def record(number: int, path: Path, **more: Any) -> Record:
    return Record({"id": f"r{number}", "image": str(path), **more})


def test_the_users_own_are_drawn_by_id(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for number, path in enumerate(paths):
        Image.new("RGB", (10 + number, 8), (number, 0, 0)).save(path)
    records = [record(number, path, text=f"caption {number}") for number, path in enumerate(paths)]
    drawn = samples.named(records, Opener(), "mine", print, most=5)
    again = samples.named(reversed(records), Opener(), "mine", print, most=5)
    assert [p.size for p in drawn.pictures] == [p.size for p in again.pictures]
    assert len(drawn.pictures) == 5
    captions = [text for text in drawn.texts if text.startswith("caption")]
    assert {f"caption {picture.width - 10}" for picture in drawn.pictures} == set(captions)
    assert len(drawn.texts) > 100, "five captions are too few to rank among"


def test_many_captions_stand_alone(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    found = samples.named(
        [record(number, tmp_path / "a.png", text=f"caption {number}") for number in range(40)], Opener(), "mine", print
    )
    assert len(found.texts) == len(found.pictures) == 40


def test_a_large_picture_is_made_smaller_once(tmp_path: Path) -> None:
    Image.new("RGB", (3000, 1000), (9, 8, 7)).save(tmp_path / "large.jpg")
    (picture,) = samples.named([record(0, tmp_path / "large.jpg")], Opener(), "mine", print).pictures
    assert picture.size == (1536, 512)


def test_those_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    bad = BadLine("x.jsonl:3", b"{", RecordError("bad-json", "not JSON"), "x.jsonl", b"0" * 16)
    told: list[str] = []
    items = [record(0, tmp_path / "a.png"), record(1, tmp_path / "broken.jpg"), record(2, tmp_path / "gone.png"), bad]
    assert len(samples.named(items, Opener(), "mine", told.append).pictures) == 1
    assert told and told[0].startswith("3 of mine left out, the first: ")
    with pytest.raises(ClipkitError, match="no picture of mine can be read: ") as caught:
        samples.named(items[1:], Opener(), "mine", told.append)
    assert caught.value.hint


def test_the_process_reads_and_writes_no_pickles(few: Samples, tmp_path: Path) -> None:
    stored = measuring.save(few, tmp_path / "samples")
    np.save(stored / "000000.npy", np.array([{"code": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        Stored(stored)[0]
    assert json.loads((stored / "texts.json").read_text())[0] == "blots"
