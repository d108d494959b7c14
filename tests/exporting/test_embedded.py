"""Preprocessing inside a graph: Pillow's resize to a level, open_clip's geometry exactly."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from PIL import Image

from clipkit.errors import ClipkitError
from clipkit.exporting.embedded import with_preprocessing
from clipkit.exporting.source import Source
from clipkit.images.decode import REDUCED, decode
from clipkit.images.transform import apply
from clipkit.models.base import Preprocess
from clipkit.models.load import load
from clipkit.models.sessions import open_session
from tests.conftest import InProcess, Runner
from tests.exporting.conftest import Maker, pictures

PLAIN = Preprocess((48, 48), (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
KINDS = {
    "shortest": PLAIN,
    "bilinear": dataclasses.replace(PLAIN, interpolation="bilinear"),
    "resize and crop": dataclasses.replace(PLAIN, resize=55),
    "resize below the crop": dataclasses.replace(PLAIN, resize=40),
    "not square": dataclasses.replace(PLAIN, size=(40, 64), interpolation="bilinear"),
    "squash": dataclasses.replace(PLAIN, resize_mode="squash"),
    "longest": dataclasses.replace(PLAIN, resize_mode="longest", fill=127),
    "longest, not square": dataclasses.replace(PLAIN, size=(64, 40), resize_mode="longest", interpolation="bilinear"),
}


def nothing(path: Path, opset: int = 20) -> Path:
    """A graph that gives the pixels that it gets."""
    pixels, joint = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3, None, None]) for name in ("pixels", "joint")
    )
    graph = helper.make_graph([helper.make_node("Identity", ["pixels"], ["joint"])], "nothing", [pixels], [joint])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("embedded")
    found = {}
    for number, (kind, preprocess) in enumerate(KINDS.items()):
        with_preprocessing(nothing(folder / "nothing.onnx"), preprocess, folder / f"{number}.onnx")
        found[kind] = open_session(folder / f"{number}.onnx", 1)
    return found


def levels(preprocess: Preprocess, got: np.ndarray, picture: Image.Image) -> np.ndarray:
    """By how many levels of 255 each value is off."""
    wanted = apply(preprocess, picture)
    assert got.shape == wanted.shape
    return np.asarray(np.rint(np.abs(got - wanted) * np.reshape(preprocess.std, (3, 1, 1)) * 255))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40)
@given(width=st.integers(5, 150), height=st.integers(5, 150), seed=st.integers(0, 2**32 - 1))
def test_any_size(networks: dict[str, Any], kind: str, width: int, height: int, seed: int) -> None:
    """Even noise, which tells in what order Pillow resizes the sides. Longer strips are resized before."""
    pytest.importorskip("PIL", "13", reason="before, Pillow resized the width first, whatever the picture")
    picture = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
    got = networks[kind].run(None, {"pixels": np.asarray(picture)[None]})[0][0]
    off = levels(KINDS[kind], got, picture)
    assert off.max() <= 2  # a tie in each of two steps
    if min(width, height) > 50:  # few rows, enlarged, hold many ties
        assert off.mean() < (0.005 if KINDS[kind].interpolation == "bicubic" else 0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_the_right_size_is_not_touched(networks: dict[str, Any], kind: str) -> None:
    preprocess = KINDS[kind]
    if preprocess.resize:
        return
    noise = np.random.default_rng(0).integers(0, 256, (2, *preprocess.size, 3), dtype=np.uint8)
    got = networks[kind].run(None, {"pixels": noise})[0]
    for row, pixels in zip(got, noise, strict=True):
        assert np.array_equal(row, apply(preprocess, Image.fromarray(pixels)))


def test_photos(networks: dict[str, Any], shared_data: Path) -> None:
    photos = sorted(shared_data.rglob("*.jpg"))[:4000:200]
    assert len(photos) > 10
    for kind in ("shortest", "squash", "longest"):
        off = []
        for path in photos:
            picture = decode(path.read_bytes())
            got = networks[kind].run(None, {"pixels": np.asarray(picture)[None]})[0][0]
            off.append(levels(KINDS[kind], got, picture).ravel())
        together = np.concatenate(off)
        assert together.max() <= 2 and together.mean() < 0.002


def test_an_opset_without_an_antialiased_resize(tmp_path: Path) -> None:
    with pytest.raises(ClipkitError, match="a graph of opset 17 has no antialiased resize"):
        with_preprocessing(nothing(tmp_path / "old.onnx", 17), PLAIN, tmp_path / "new.onnx")


@pytest.fixture(scope="module")
def raw(make: Maker, source: Callable[[str], Source], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("raw") / "model"
    make("onnx", source("tiny-vit"), folder, embed_preprocessing=True)
    yield folder


def test_the_model_is_the_same(raw: Path, exported: Callable[[str], Path]) -> None:
    encoder, plain = load(str(raw)), load(str(exported("tiny-vit")))
    assert json.loads((raw / "clipkit.json").read_text())["pixels"] == "raw"
    assert encoder.identity.digest != plain.identity.digest, "a level more or less is another number"
    several = pictures(5)
    inputs = [encoder.preprocess(picture) for picture in several]
    assert len({pixels.shape for pixels in inputs}) == 5 and inputs[0].dtype == np.uint8
    features, backbone = encoder.encode_images(inputs, backbone=True)
    wanted, behind = plain.encode_images([plain.preprocess(picture) for picture in several], backbone=True)
    assert (features * wanted).sum(1).min() > 0.9999
    assert backbone is not None and behind is not None
    np.testing.assert_allclose(backbone, behind, atol=0.02)


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (2300, 2000)])
def test_what_is_too_large_to_wait_is_resized_before(raw: Path, exported: Callable[[str], Path], size: Any) -> None:
    encoder, plain = load(str(raw)), load(str(exported("tiny-vit")))
    picture = pictures(1)[0].resize(size)
    given = encoder.preprocess(picture)
    assert given.shape == (32, 32, 3)
    assert np.array_equal(encoder.encode_images([given])[0], plain.encode_images([plain.preprocess(picture)])[0])


def test_jpegs_that_were_decoded_at_reduced_scale(raw: Path, exported: Callable[[str], Path], tmp_path: Path) -> None:
    pictures(1)[0].resize((901, 701)).save(tmp_path / "photo.jpg")
    picture = decode((tmp_path / "photo.jpg").read_bytes(), fit=32)
    assert REDUCED in picture.info
    encoder, plain = load(str(raw)), load(str(exported("tiny-vit")))
    mine, other = (model.encode_images([model.preprocess(picture)])[0] for model in (encoder, plain))
    assert np.array_equal(mine, other)


def test_verbs(raw: Path, tmp_path: Path, clipkit: Runner) -> None:
    """Photos of several sizes, views of them, and again from the cache."""
    (tmp_path / "photos").mkdir()
    for number, picture in enumerate(pictures(5)):
        picture.save(tmp_path / "photos" / f"{number}.png")
    pictures(1)[0].resize((1500, 1100)).save(tmp_path / "photos" / "large.jpg")
    command = ("zeroshot", "photos/", "--labels", "cats,dogs", "--model", raw)
    first, again = clipkit(*command), clipkit(*command)
    assert first.code == 0 and len(first.lines) == 6
    assert first.stdout == again.stdout
    records = [{"id": path.name, "image": str(path), "text": "a cat"} for path in (tmp_path / "photos").iterdir()]
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    views = clipkit("score", "--by", "clip,clip-flip", "--model", raw, stdin=lines)
    assert views.code == 0 and len(views.lines) == 6, views.stderr
    scores = [json.loads(line)["scores"] for line in views.lines]
    assert all({"clip", "clip_flip"} <= score.keys() for score in scores)


def test_whose_features_are_whose(
    raw: Path, exported: Callable[[str], Path], source: Callable[[str], Source], tmp_path: Path, in_process: InProcess
) -> None:
    """A store and an adapter of the source are good for its f32 export, and refused for one with raw pixels."""
    for number, picture in enumerate(pictures(4)):
        picture.save(tmp_path / f"{number}.png")
    shown = [
        {"id": f"{n}", "image": str(tmp_path / f"{n}.png"), "text": "a", "label": "ab"[n % 2], "split": "train"}
        for n in range(4)
    ]
    (tmp_path / "few.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in shown))
    few, store, adapter = tmp_path / "few.jsonl", tmp_path / "store", tmp_path / "adapter"
    model, plain = source("tiny-vit")._named, exported("tiny-vit")
    assert in_process("embed", few, "-o", store, "--model", model).code == 0
    assert in_process("train-adapter", few, "--method", "ridge", "--model", model, "-o", adapter).code == 0
    calls: list[tuple[Any, ...]] = [
        ("score", few, "--by", "clip", "--features", store),
        ("apply", adapter, few),
        ("train-adapter", few, "--method", "ridge", "--features", store, "-o", tmp_path / "other"),
    ]
    for call in calls:
        refused = in_process(*call, "--model", raw)
        assert refused.code != 0 and refused.stdout == "" and len(refused.stderr.splitlines()) == 2
        assert "not of tiny-vit" in refused.stderr or "was made for tiny-vit" in refused.stderr
        done = in_process(*call, "--model", plain)
        assert done.code == 0, done.stderr
