"""Views of a picture: mirrored at any scale of decoding; looked up, decoded and encoded together."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from clipkit.features.cache import Cache
from clipkit.features.embedder import Embedder
from clipkit.features.views import FLIP, PLAIN, Crop, View, augmented, edges, mirror
from clipkit.images import transform
from clipkit.images.decode import REDUCED, decode
from clipkit.images.opener import Opener
from clipkit.models.lite.encoder import PREPROCESS
from clipkit.models.load import load


def jpeg(size: tuple[int, int], seed: int = 0) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.mark.parametrize("size", [(1000, 905), (911, 1300), (1803, 1799)])  # the last blocks are not full
def test_a_reduced_picture_mirrors_as_the_whole_one_does(size: tuple[int, int]) -> None:
    data = jpeg(size)
    reduced, whole = decode(data, fit=224), decode(data)
    assert REDUCED in reduced.info
    expected = transform.apply(PREPROCESS, ImageOps.mirror(whole))
    found = transform.apply(PREPROCESS, mirror(reduced))
    plain = transform.apply(PREPROCESS, reduced)
    assert np.abs(found - expected).mean() < 0.01
    assert np.abs(plain - expected).mean() > 0.1
    back = mirror(mirror(reduced))
    assert back.info[REDUCED] == reduced.info[REDUCED] and back.tobytes() == reduced.tobytes()


def test_edges_are_those_of_the_original() -> None:
    reduced = decode(jpeg((1001, 903)), fit=200)
    left, top, right, bottom = edges(reduced)
    assert (left, top) == (0, 0) and (right, bottom) == pytest.approx((1001 / 2, 903 / 2))
    assert edges(Image.new("RGB", (7, 5))) == (0, 0, 7, 5)


def embedder(root: Path, cache: Path | None = None) -> Embedder:
    return Embedder(load("lite"), Opener(root), Cache.open(cache, 64 << 20))


def test_the_plain_view_is_what_prepare_image_gives(tmp_path: Path) -> None:
    data = jpeg((900, 700))
    (tmp_path / "a.jpg").write_bytes(data)
    here = embedder(tmp_path, tmp_path / "cache")
    views = here.prepare_views(data, {"a": PLAIN, "b": FLIP, "c": PLAIN})
    assert views["a"] is views["c"]
    rows = here.encode([views["a"], views["b"]]).joint
    alone = embedder(tmp_path)
    assert np.array_equal(rows[:1], alone.encode([alone.prepare_image("a.jpg")]).joint)
    assert not np.array_equal(rows[0], rows[1])
    assert here.prepare_image("a.jpg").pixels is None  # they share the cache
    assert here.prepare_views(data, {"b": FLIP})["b"].pixels is None
    here.close()


def test_what_is_not_known_is_decoded_once_and_what_is_known_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, decoded = jpeg((300, 200)), []
    monkeypatch.setattr("clipkit.images.decode.decode", lambda *a, **k: decoded.append(k) or decode(*a, **k))
    here = embedder(tmp_path, tmp_path / "cache")
    dark = View("dark", lambda picture: picture.point(lambda level: level // 2))
    here.encode(list(here.prepare_views(data, {"a": PLAIN, "b": FLIP, "c": dark}).values()))
    assert len(decoded) == 1
    here.encode(list(here.prepare_views(data, {"c": dark, "a": PLAIN}).values()))
    assert len(decoded) == 1
    here.close()


@pytest.mark.parametrize("size", [(300, 200), (1200, 1000)])
def test_a_picture_decoded_exactly_changes_nothing(size: tuple[int, int], tmp_path: Path) -> None:
    data = jpeg(size)
    here = embedder(tmp_path)
    without = here.prepare_views(data, {"b": FLIP})["b"].pixels
    given = here.prepare_views(data, {"b": FLIP}, decode(data))["b"].pixels
    assert without is not None and given is not None and np.array_equal(without, given)


sides = st.integers(1, 4000)


@given(sides, sides, st.text(max_size=8), st.integers(0, 50), st.sampled_from([(0.5, 1.0), (0.08, 1.0), (1.0, 1.0)]))
def test_a_crop_lies_inside_and_keeps_its_bounds(
    width: int, height: int, name: str, number: int, scale: tuple[float, float]
) -> None:
    crop = Crop.drawn(name, number, 0, scale)
    left, top, right, bottom = crop.box(width, height)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    area, ratio = (right - left) * (bottom - top) / (width * height), (right - left) / (bottom - top)
    assert 3 / 4 - 1e-9 <= ratio <= 4 / 3 + 1e-9
    assert scale[0] - 1e-6 <= crop.area <= scale[1] + 1e-6
    if 3 / 4 <= width / height <= 4 / 3:
        assert area == pytest.approx(crop.area, rel=1e-9)
    else:  # a picture too long for the area: as high (or as wide) as it is
        assert area == pytest.approx(crop.area, rel=1e-9) or right - left == width or bottom - top == height
        assert area <= crop.area * (1 + 1e-9)


def test_a_crop_that_reaches_over_an_edge_takes_the_nearest_ratio() -> None:
    crop = Crop(area=0.81, ratio=4 / 3, x=1.0, y=0.5, mirrored=False)
    assert crop.box(100, 100) == pytest.approx((0, 9.5, 100, 90.5))  # 4:3 would be 103.9 wide
    assert Crop(0.5, 1.0, 1.0, 0.5, False).box(400, 100) == pytest.approx((400 - 400 / 3, 0, 400, 100))
    assert Crop(0.25, 1.0, 0.5, 0.0, False).box(100, 100) == pytest.approx((25, 0, 75, 50))


def test_crops_are_spread_as_said() -> None:
    drawn = [Crop.drawn(f"picture {number}", 1, 0, (0.5, 1.0)) for number in range(2000)]
    for values, low, high in (
        ([crop.area for crop in drawn], 0.5, 1.0),
        ([np.log(crop.ratio) for crop in drawn], np.log(3 / 4), np.log(4 / 3)),
        ([crop.x for crop in drawn], 0.0, 1.0),
        ([crop.y for crop in drawn], 0.0, 1.0),
    ):
        assert np.mean(values) == pytest.approx((low + high) / 2, abs=0.02)
        assert np.std(values) == pytest.approx((high - low) / 12**0.5, rel=0.05)
    assert np.mean([crop.mirrored for crop in drawn]) == pytest.approx(0.5, abs=0.04)


def test_one_name_number_and_seed_one_view() -> None:
    size = (32, 48)
    keys = {
        augmented(name, number, seed, size, scale).key
        for name in ("a", "b")
        for number in (1, 2, 3)
        for seed in (0, 1)
        for scale in ((0.5, 1.0), (0.08, 1.0))
    }
    assert len(keys) == 24
    assert augmented("a", 1, 0, size).key == augmented("a", 1, 0, size, (0.5, 1.0)).key
    assert augmented("a", 1, 0, (48, 32)).key != augmented("a", 1, 0, size).key


@pytest.mark.parametrize("number", range(1, 9))
def test_an_augmented_view_is_one_call_of_pillows(number: int) -> None:
    picture = decode(jpeg((301, 203)))
    crop = Crop.drawn("a", number, 7, (0.5, 1.0))
    expected = picture.resize((48, 32), Image.Resampling.BICUBIC, box=crop.box(301, 203))
    if crop.mirrored:
        expected = ImageOps.mirror(expected)
    view = augmented("a", number, 7, (32, 48))
    assert view.make(picture).tobytes() == expected.tobytes()
    assert f"crop/{crop.area:.6f}/{crop.ratio:.6f}/{crop.x:.6f}/{crop.y:.6f}/" in view.key
    assert view.key.endswith("mirrored/48x32") == crop.mirrored


@pytest.mark.parametrize("size", [(1000, 905), (911, 1300), (1803, 1799)])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_reduced_picture_gives_the_view_that_the_whole_one_does(size: tuple[int, int], number: int) -> None:
    data = jpeg(size)
    view = augmented("a", number, 0, (224, 224))
    reduced, whole = view.make(decode(data, fit=224)), view.make(decode(data))
    assert REDUCED in decode(data, fit=224).info and reduced.info == {}
    error = np.abs(np.asarray(reduced, float) - np.asarray(whole, float)).mean()
    other = augmented("a", number + 10, 0, (224, 224)).make(decode(data))
    assert error < 1.0 < np.abs(np.asarray(other, float) - np.asarray(whole, float)).mean()


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 3)])
def test_pictures_of_any_shape_have_views(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, (10, 20, 30))
    for number in range(1, 20):
        made = augmented("a", number, 0, (8, 12), (0.08, 1.0)).make(picture)
        assert made.size == (12, 8) and made.getcolors() == [(96, (10, 20, 30))]


def test_a_view_that_may_not_be_mirrored_is_else_the_same() -> None:
    picture = decode(jpeg((60, 40)))
    turned = 0
    for number in range(1, 30):
        either = augmented("a", number, 0, (16, 16))
        plain = augmented("a", number, 0, (16, 16), mirrors=False)
        assert either.key.replace("/mirrored", "") == plain.key
        made = either.make(picture)
        turned += "mirrored" in either.key
        assert plain.make(picture) == (ImageOps.mirror(made) if "mirrored" in either.key else made)
    assert 5 < turned < 25


def test_the_models_preprocessing_only_normalises_an_augmented_view() -> None:
    made = augmented("a", 1, 0, PREPROCESS.size).make(decode(jpeg((300, 200))))
    level = np.asarray(made, np.float32).transpose(2, 0, 1) / 255
    expected = (level - np.float32(127 / 255)) / np.float32(128 / 255)
    np.testing.assert_allclose(transform.apply(PREPROCESS, made), expected, atol=1e-6)


def test_backbone_features_of_views_through_the_cache(tmp_path: Path) -> None:
    data = jpeg((300, 200))
    here = embedder(tmp_path, tmp_path / "cache")
    views = {"plain": PLAIN} | {str(n): augmented("a", n, 0, PREPROCESS.size) for n in (1, 2)}
    here.encode(list(here.prepare_views(data, views).values()))
    assert all(item.pixels is None for item in here.prepare_views(data, views).values())
    items = list(here.prepare_views(data, views, backbone=True).values())
    assert all(item.pixels is not None for item in items), "the joint features alone are known"
    cold = here.encode(items, backbone=True)
    known = list(here.prepare_views(data, views, backbone=True).values())
    assert all(item.pixels is None for item in known)
    warm = here.encode(known, backbone=True)
    assert cold.backbone is not None and warm.backbone is not None
    assert np.array_equal(cold.backbone, warm.backbone) and np.array_equal(cold.joint, warm.joint)
    assert len({row.tobytes() for row in cold.backbone}) == 3
    here.close()
