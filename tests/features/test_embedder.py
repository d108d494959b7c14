"""The embedder: what comes from the cache is what the model gave, bit for bit, and the model runs for the rest only."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clipkit.errors import ClipkitError, RecordError
from clipkit.features.cache import Cache, image_key, text_key
from clipkit.features.embedder import Embedder, open_embedder, short_side
from clipkit.images.opener import Opener
from clipkit.models.base import Encoder, Identity, Preprocess

BOUND = 64 << 20


def picture(seed: int, size: tuple[int, int] = (90, 70)) -> Image.Image:
    """A smooth picture, so that scaled decoding and resizing do something."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures, of which 9.jpg has the bytes of 0.jpg and large.jpg is 1600 x 1200."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(9):
        picture(seed).save(folder / f"{seed}.jpg")
    (folder / "9.jpg").write_bytes((folder / "0.jpg").read_bytes())
    picture(1, (1600, 1200)).save(folder / "large.jpg")
    return folder


@pytest.fixture
def opened() -> Iterator[list[Embedder]]:
    embedders: list[Embedder] = []
    yield embedders
    for embedder in embedders:
        embedder.close()


def lite(photos: Path, cache: Path | None, opened: list[Embedder], **config: Any) -> Embedder:
    runtime = {"root": str(photos), "cache": str(cache) if cache else None, "cache_bytes": BOUND}
    opened.append(open_embedder({"model": "lite", **config}, runtime))
    return opened[-1]


def forbid(*_: object, **__: object) -> Any:
    raise AssertionError("the model ran, or an image was decoded")


NAMES = [f"{n}.jpg" for n in range(10)]
TEXTS = ["a cat", "a dog on a sofa", "", "ein Hund", "a cat"]


def test_warm_equals_cold_equals_no_cache_bit_for_bit(
    photos: Path, tmp_path: Path, opened: list[Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(embedder: Embedder) -> list[bytes]:
        items = [embedder.prepare_image(name, backbone=True) for name in NAMES]
        features = embedder.encode(items, backbone=True)
        assert features.backbone is not None
        texts = embedder.encode_texts(TEXTS)
        assert features.joint.shape == (10, 512)
        assert features.backbone.shape == (10, 1280)
        assert {a.dtype for a in (features.joint, features.backbone, texts)} == {np.dtype(np.float32)}
        embedder.close()
        return [features.joint.tobytes(), features.backbone.tobytes(), texts.tobytes()]

    none = run(lite(photos, None, opened))
    cold = run(lite(photos, tmp_path, opened))
    warm_embedder = lite(photos, tmp_path, opened)
    for name in ("encode_images", "encode_texts", "preprocess"):
        monkeypatch.setattr(warm_embedder.encoder, name, forbid)
    warm = run(warm_embedder)
    assert none == cold == warm


def test_rows_do_not_depend_on_batch_neighbours_or_copies(photos: Path, opened: list[Embedder]) -> None:
    embedder = lite(photos, None, opened)
    together = embedder.encode([embedder.prepare_image(name) for name in NAMES]).joint
    alone = [embedder.encode([embedder.prepare_image(name)]).joint[0] for name in NAMES]
    assert np.array_equal(together, np.stack(alone))
    assert np.array_equal(together[0], together[9])  # the same bytes under two names
    assert not np.array_equal(together[0], together[1])
    texts = embedder.encode_texts(TEXTS)
    assert np.array_equal(texts, np.concatenate([embedder.encode_texts([text]) for text in TEXTS]))
    assert np.array_equal(texts[0], texts[4])


def test_hits_and_misses_mix_in_one_batch(photos: Path, tmp_path: Path, opened: list[Embedder]) -> None:
    embedder = lite(photos, tmp_path, opened)
    embedder.encode([embedder.prepare_image(name) for name in ("1.jpg", "3.jpg")])
    items = [embedder.prepare_image(name) for name in NAMES]
    assert [item.pixels is None for item in items] == [n in (1, 3) for n in range(10)]
    expected = lite(photos, None, opened)
    assert np.array_equal(
        embedder.encode(items).joint, expected.encode([expected.prepare_image(n) for n in NAMES]).joint
    )


def test_a_cached_joint_vector_does_not_stand_for_the_backbone(
    photos: Path, tmp_path: Path, opened: list[Embedder]
) -> None:
    embedder = lite(photos, tmp_path, opened)
    embedder.encode([embedder.prepare_image("2.jpg")])
    item = embedder.prepare_image("2.jpg", backbone=True)
    assert item.pixels is not None
    assert embedder.encode([item], backbone=True).backbone is not None
    assert embedder.prepare_image("2.jpg", backbone=True).pixels is None


def test_exact_and_scaled_decoding_have_rows_of_their_own(photos: Path, tmp_path: Path, opened: list[Embedder]) -> None:
    scaled, exact = lite(photos, tmp_path, opened), lite(photos, tmp_path, opened, exact_decode=True)
    first = scaled.encode([scaled.prepare_image("large.jpg")]).joint
    item = exact.prepare_image("large.jpg")
    assert item.pixels is not None
    second = exact.encode([item]).joint
    assert 0.99 < np.dot(first[0], second[0]) < 1


def test_nothing_to_encode(photos: Path, opened: list[Embedder]) -> None:
    embedder = lite(photos, None, opened)
    assert embedder.encode([]).joint.shape == (0, 512)
    assert embedder.encode_texts([]).shape == (0, 512)


def test_a_broken_image_is_a_record_error(photos: Path, tmp_path: Path, opened: list[Embedder]) -> None:
    embedder = lite(tmp_path, None, opened)
    (tmp_path / "cut.jpg").write_bytes((photos / "large.jpg").read_bytes()[:3000])
    for name in ("absent.jpg", "cut.jpg"):
        with pytest.raises(RecordError):
            embedder.prepare_image(name)


def test_texts_that_the_model_cuts_are_counted_warm_and_cold(
    photos: Path, tmp_path: Path, opened: list[Embedder]
) -> None:
    for _ in range(2):
        embedder = lite(photos, tmp_path, opened)
        embedder.encode_texts(["word " * 300])
        assert embedder.notices == ["1 text was cut: lite reads 128 tokens"]
        embedder.encode_texts(["short", "other " * 400])
        assert embedder.notices == ["2 texts were cut: lite reads 128 tokens"]
        embedder.close()


def test_short_texts_are_not_tokenized_to_know_that_they_fit(
    photos: Path, opened: list[Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = lite(photos, None, opened)
    monkeypatch.setattr(embedder.encoder, "count_tokens", forbid)
    embedder.encode_texts(["a photo of a cat"])
    assert embedder.notices == []


def test_the_short_side_kept_by_a_scaled_decode() -> None:
    def given(**fields: Any) -> Preprocess:
        return Preprocess(**{"size": (224, 224), "mean": (0.5,) * 3, "std": (0.5,) * 3, **fields})

    assert short_side(given()) == 224
    assert short_side(given(resize=256)) == 256
    assert short_side(given(size=(224, 336), resize_mode="squash")) == 336


class Mean(Encoder):
    """A real if humble encoder: the mean colours of four quarters. Its space can change, as after out-of-memory."""

    backend = "test"
    logit_scale = 10.0
    context_length = 77
    backbone_dim = None

    def __init__(self, space: str = "a") -> None:
        self.identity = Identity("mean", "00", Preprocess((4, 4), (0.0,) * 3, (1.0,) * 3), "none", 12)
        self.now = space
        self.after = space
        self.calls = 0

    @property
    def space(self) -> str:
        return self.now

    def preprocess(self, image: Image.Image) -> np.ndarray:
        small = np.asarray(image.resize((2, 2), Image.Resampling.BOX), np.float32) / 255
        return np.ascontiguousarray(small.transpose(2, 0, 1))

    def encode_images(
        self, batch: np.ndarray | Sequence[np.ndarray], *, backbone: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        self.calls += 1
        self.now = self.after
        rows = np.stack(list(batch)).reshape(len(batch), -1) + 1
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), None

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        self.now = self.after
        rows = np.array([[len(text) + 1, *range(11)] for text in texts], np.float32)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def mean(photos: Path, cache: Cache, encoder: Mean) -> Embedder:
    return Embedder(encoder, Opener(photos), cache)


def test_equal_images_of_a_batch_are_encoded_once(photos: Path, tmp_path: Path) -> None:
    encoder = Mean()
    encoder.batch_size = 1
    embedder = mean(photos, Cache.open(tmp_path, BOUND), encoder)
    joint = embedder.encode([embedder.prepare_image(n) for n in ("0.jpg", "9.jpg", "0.jpg")]).joint
    assert encoder.calls == 1
    assert np.array_equal(joint[0], joint[1])


def test_rows_of_a_space_that_changed_on_the_way_are_not_kept(photos: Path, tmp_path: Path) -> None:
    cache = Cache.open(tmp_path, BOUND)
    encoder = Mean("batches of 64")
    encoder.after = "batches of 32"
    embedder = mean(photos, cache, encoder)
    item = embedder.prepare_image("0.jpg")
    embedder.encode([item])
    encoder.now = "batches of 64"
    embedder.encode_texts(["a"])
    assert cache.get_many([*item.keys.values(), text_key("a", "batches of 64")]) == {}
    encoder.now = encoder.after
    item = embedder.prepare_image("0.jpg")
    embedder.encode([item])
    assert cache.get_many(item.keys.values()).keys() == set(item.keys.values())
    embedder.close()


def test_a_row_of_another_width_is_a_miss(photos: Path, tmp_path: Path) -> None:
    cache = Cache.open(tmp_path, BOUND)
    embedder = mean(photos, cache, Mean())
    item = embedder.prepare_image("0.jpg")
    cache.put_many({item.keys["joint"]: np.zeros(5, np.float32), text_key("a", "a"): np.zeros(5, np.float32)}, "odd")
    assert embedder.prepare_image("0.jpg").pixels is not None
    assert embedder.encode_texts(["a"]).shape == (1, 12)
    embedder.close()


@pytest.mark.parametrize(("tower", "lacking"), [("image", "texts"), ("text", "pictures")])
def test_what_a_model_lacks_is_not_found_in_the_cache(
    tower: str, lacking: str, photos: Path, tmp_path: Path, opened: list[Embedder]
) -> None:
    """An export of one tower has the identity of the whole model, whose features are there."""
    from clipkit.features.views import PLAIN

    known = lite(photos, tmp_path, opened)
    known.encode([known.prepare_image("0.jpg")])
    known.encode_texts(["a cat"])
    known.close()
    half = lite(photos, tmp_path, opened)
    half.encoder.towers = (tower,)
    asked: list[Any] = [lambda: half.encode_texts(["a cat"])]
    if tower == "text":
        asked = [
            lambda: half.prepare_image("0.jpg"),
            lambda: half.prepare_views((photos / "0.jpg").read_bytes(), {"plain": PLAIN}),
        ]
    for ask in asked:
        with pytest.raises(ClipkitError, match=f"holds the {tower} tower alone: it has no features of {lacking}"):
            ask()


def test_a_model_without_a_backbone_says_so(photos: Path) -> None:
    with pytest.raises(ClipkitError, match="mean has no backbone features"):
        mean(photos, Cache.open(None, 0), Mean()).prepare_image("0.jpg", backbone=True)


def test_the_key_is_of_the_bytes_not_of_the_path(photos: Path, tmp_path: Path) -> None:
    import hashlib

    embedder = mean(photos, Cache.open(tmp_path, BOUND), Mean())
    item = embedder.prepare_image("0.jpg")
    digest = hashlib.sha256((photos / "9.jpg").read_bytes()).digest()
    assert item.keys["joint"] == image_key(digest, "a", "joint", "plain", "scaled")
    data = io.BytesIO()
    picture(0).save(data, "PNG")
    (photos / "0.png").write_bytes(data.getvalue())
    assert embedder.prepare_image("0.png").keys != item.keys
