"""Views of a picture: mirrored at any scale of decoding; looked up, decoded and encoded together."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from clipkit.features.cache import Cache
from clipkit.features.embedder import Embedder
from clipkit.features.views import FLIP, PLAIN, View, edges, mirror
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
