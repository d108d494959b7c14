"""Concepts in words, and their probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import clipkit
from clipkit.errors import UsageError
from clipkit.images.decode import decode
from clipkit.methods.scorers.prompts import parse_concepts
from tests.methods.scorers.scoring import scored, scores, smooth


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a watermark|a clean photo", {"a_watermark": ["a watermark", "a clean photo"]}),
        ("food=food | something else|a table", {"food": ["food", "something else", "a table"]}),
        ("A Café, at night!|a bar", {"a_café_at_night": ["A Café, at night!", "a bar"]}),
        ("a sign that says 2+2=4|none", {"a_sign_that_says_2_2_4": ["a sign that says 2+2=4", "none"]}),
        ("x==y|z", {"x": ["=y", "z"]}),
    ],
)
def test_a_concept_has_a_name_and_texts(given: str, expected: dict[str, list[str]]) -> None:
    assert parse_concepts([given]) == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a watermark"], "two texts or more"),
        (["a|"], "two texts or more"),
        (["x=|a"], "two texts or more"),
        (["a|b|a"], "twice"),
        (["!!|b"], "no letters"),
        (["a|b", "a|c"], "two concepts are called 'a'"),
        ([], "no concept"),
    ],
)
def test_a_concept_that_is_none_is_refused(given: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_concepts(given)


def test_the_score_is_the_softmax_of_scaled_cosines_of_the_texts_as_they_are(tmp_path: Path) -> None:
    smooth(3).save(tmp_path / "a.png")
    texts = ["a photo of grass", "the sea", "a face"]
    options = {"concepts": ["|".join(texts), "sea=the sea|a photo of grass|a face"]}
    (row,) = scores([{"image": "a.png"}], ["prompts"], tmp_path, options=options)
    lite = clipkit.load("lite")
    image = lite.encode_images([lite.preprocess(decode((tmp_path / "a.png").read_bytes()))])[0][0]
    logits = lite.logit_scale * lite.encode_texts(texts).astype(float) @ image.astype(float)
    expected = np.exp(logits) / np.exp(logits).sum()
    assert row == {
        "a_photo_of_grass": pytest.approx(expected[0], abs=1e-6),
        "sea": pytest.approx(expected[1], abs=1e-6),
    }


def test_another_concept_of_the_same_name_is_another_maker(tmp_path: Path) -> None:
    smooth(3).save(tmp_path / "a.png")
    first = scored([{"image": "a.png"}], ["prompts"], tmp_path, options={"concepts": ["x=a cat|a dog"]})
    again = scored(first, ["prompts"], tmp_path, options={"concepts": ["x=a cat|a dog"]})
    assert again == first
    other = scored(first, ["prompts"], tmp_path, options={"concepts": ["x=a cat|a horse"]})
    assert other[0]["error"]["type"] == "score-exists"
    assert other[0]["scores"] == first[0]["scores"]
