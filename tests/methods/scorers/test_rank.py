"""Ranks against a plain count in float64; batches that hang on ids alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import clipkit
from clipkit.methods.scorers.rank import batches, ranks
from tests.methods.scorers.scoring import scores, smooth


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def counted(images: np.ndarray, texts: np.ndarray, captions: list[bytes]) -> list[int]:
    """The definition, word for word; sums of einsum, as near-equal ones are to be told apart the same way."""
    products = [[float(np.einsum("d,d->", i.astype(float), t.astype(float))) for t in texts] for i in images]
    size = range(len(captions))
    return [1 + sum(products[i][j] > products[i][i] and captions[j] != captions[i] for j in size) for i in size]


@pytest.mark.parametrize("count", [1, 2, 17, 120])
def test_a_rank_is_one_plus_the_captions_that_are_more_alike(count: int) -> None:
    draw = np.random.default_rng(count)
    images = unit(draw.standard_normal((count, 64)))
    texts = unit(images + 2 * draw.standard_normal((count, 64)) / 8)
    captions = [bytes([n % 250]) for n in range(count)]
    found = ranks(images, texts, captions)
    assert found == counted(images, texts, captions)
    assert count < 100 or 1 < np.mean(found) < count / 2


def test_captions_equal_to_ones_own_and_captions_as_alike_do_not_count() -> None:
    draw = np.random.default_rng(0)
    images = unit(draw.standard_normal((4, 8)))
    one = unit(draw.standard_normal((1, 8)))
    texts = np.concatenate([one, one, images[:1], images[:1]])  # the last two are more like the first image
    assert ranks(images, texts, [b"a", b"b", b"c", b"d"])[0] == 3
    assert ranks(images, texts, [b"a", b"b", b"a", b"d"])[0] == 2
    assert ranks(images[:2], texts[:2], [b"a", b"b"]) == [1, 1]


def test_what_float32_cannot_tell_apart_is_told_apart_in_float64() -> None:
    """Rows whose products differ by less than a float32 sum is off by."""
    draw = np.random.default_rng(1)
    images = unit(draw.standard_normal((40, 512)))
    shared = unit(draw.standard_normal((1, 512)))
    texts = unit(shared + 1e-7 * draw.standard_normal((40, 512)))
    captions = [str(n).encode() for n in range(40)]
    expected = counted(images, texts, captions)
    assert len(set(expected)) > 5
    assert ranks(images, texts, captions) == expected
    order = draw.permutation(40)
    mixed = ranks(images[order], texts[order], [captions[n] for n in order])
    assert [mixed[list(order).index(n)] for n in range(40)] == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.integers(2, 60), st.randoms(use_true_random=False))
def test_batches_are_a_division_by_id_in_any_order(count: int, size: int, random: Any) -> None:
    ids = [f"r{n}" for n in range(count)]
    parts = list(batches(iter(ids), size))
    assert sorted(n for part in parts for n in part) == list(range(count))
    lengths = [len(part) for part in parts]
    if count:
        assert max(lengths) - min(lengths) <= 1
        assert len(lengths) == max(1, round(count / size))
    shuffled = random.sample(ids, count)
    again = list(batches(iter(shuffled), size))
    assert [[ids[n] for n in part] for part in parts] == [[shuffled[n] for n in part] for part in again]


def test_the_verbs_ranks_are_those_of_the_features(tmp_path: Path) -> None:
    words = ["red", "green", "blue", "a forest", "the sea", "red", "night", "snow", "sand"]
    for n in range(len(words)):
        smooth(n).save(tmp_path / f"{n}.png")
    records = [{"id": str(n), "image": f"{n}.png", "text": word} for n, word in enumerate(words)]
    lite = clipkit.load("lite")
    pixels = [lite.preprocess(smooth(n)) for n in range(len(words))]
    images, texts = lite.encode_images(pixels)[0], lite.encode_texts(words)
    expected = counted(images, texts, [word.encode() for word in words])
    found = scores(records, ["retrieval-rank"], tmp_path)
    assert [row["retrieval_rank"] for row in found] == expected
    assert len(set(expected)) > 3
    turned = scores(records[::-1], ["retrieval-rank"], tmp_path, workers=1)
    assert turned[::-1] == found
    small = scores(records, ["retrieval-rank"], tmp_path, options={"rank_batch": 3})
    assert max(row["retrieval_rank"] for row in small) <= 3
    parts = list(batches((str(n) for n in range(len(words))), 3))
    for part in parts:
        of_part = counted(images[part], texts[part], [words[n].encode() for n in part])
        assert [small[n]["retrieval_rank"] for n in part] == of_part
