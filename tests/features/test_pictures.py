"""Pictures for methods that train through the model: the same input as for features, views by hash, errors by name."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipkit.errors import ClipkitError, RecordError
from clipkit.features.cache import Cache
from clipkit.features.embedder import Embedder
from clipkit.features.pictures import ImagePictures
from clipkit.features.views import augmented
from clipkit.images.decode import REDUCED, decode
from clipkit.images.opener import Opener
from clipkit.models.lite.encoder import PREPROCESS
from clipkit.models.load import load


def jpeg(size: tuple[int, int], seed: int = 0) -> bytes:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, size in (("small.jpg", (300, 200)), ("large.jpg", (1300, 1100))):
        (tmp_path / name).write_bytes(jpeg(size))
    return tmp_path


def pictures(folder: Path, *names: str, exact: bool = False, seed: int = 0) -> ImagePictures:
    return ImagePictures(load("lite"), Opener(folder), names, names, exact_decode=exact, seed=seed)


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("name", ["small.jpg", "large.jpg"])
def test_the_plain_view_is_what_features_are_computed_from(folder: Path, name: str, exact: bool) -> None:
    embedder = Embedder(load("lite"), Opener(folder), Cache.open(None, 0), exact_decode=exact)
    found = pictures(folder, "small.jpg", "large.jpg", exact=exact)
    assert len(found) == 2
    row = ("small.jpg", "large.jpg").index(name)
    expected = embedder.prepare_image(name).pixels
    assert expected is not None and np.array_equal(found.pixels(row), expected)


def test_other_views_are_crops_by_name_number_and_seed(folder: Path) -> None:
    here = pictures(folder, "small.jpg", "large.jpg")
    seen = [here.pixels(0, view) for view in range(4)]
    assert len({pixels.tobytes() for pixels in seen}) == 4
    again = pictures(folder, "large.jpg", "small.jpg")
    assert np.array_equal(again.pixels(1, 3), seen[3]), "neither the order nor what was asked before decides"
    assert not np.array_equal(pictures(folder, "small.jpg", seed=1).pixels(0, 3), seen[3])
    view = augmented("small.jpg", 3, 0, PREPROCESS.size, (0.08, 1.0))
    expected = load("lite").preprocess(view.make(decode(jpeg((300, 200)))))
    assert np.array_equal(seen[3], expected)


def test_small_crops_of_a_large_picture_are_not_enlarged_from_a_reduced_one(folder: Path) -> None:
    assert REDUCED in decode(jpeg((1300, 1100)), fit=224).info
    for view in range(1, 5):
        scaled = pictures(folder, "large.jpg").pixels(0, view)
        assert np.array_equal(scaled, pictures(folder, "large.jpg", exact=True).pixels(0, view))


@pytest.mark.parametrize("view", [0, 1])
@pytest.mark.parametrize(("name", "said"), [("no.jpg", "no file"), ("bad.jpg", "cannot decode JPEG")])
def test_what_cannot_be_opened_is_named_and_ends_the_fit(folder: Path, view: int, name: str, said: str) -> None:
    (folder / "bad.jpg").write_bytes(jpeg((30, 20))[:200])
    with pytest.raises(ClipkitError, match=f"^{name}: .*{said}") as caught:
        pictures(folder, name).pixels(0, view)
    assert not isinstance(caught.value, RecordError), "no stream may go on as if it were one record"


def test_as_many_names_as_references(folder: Path) -> None:
    with pytest.raises(ValueError, match="2 references and 1 names"):
        ImagePictures(load("lite"), Opener(folder), ["a", "b"], ["a"])
