"""Class features: open_clip's zero-shot ensemble, and descriptions in place of templates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from clipkit.text.classifier import classifier
from clipkit.text.labels import Labels
from clipkit.text.templates import resolve_templates


class Spelling:
    """An encoder whose features are worked out by hand: a's and b's in a text, made unit."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        self.asked += texts
        rows = np.array([[text.count("a"), text.count("b")] for text in texts], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_mean_is_of_unit_features_and_unit_again() -> None:
    found = classifier(Spelling(), Labels(("aaaa",)), ["{}", "bbb{}bbbbb", "{}"])
    # unit features: (1, 0), (4, 8) / sqrt(80), (1, 0)
    mean = (np.array([1, 0]) + np.array([4, 8]) / np.sqrt(80) + np.array([1, 0])) / 3
    np.testing.assert_allclose(found, [mean / np.linalg.norm(mean)], atol=1e-7)
    assert found.dtype == np.float32


def test_descriptions_stand_for_their_class_as_they_are() -> None:
    labels = Labels(("a", "b"), {"a": ("ab", "b"), "b": ()})
    encoder = Spelling()
    found = classifier(encoder, labels, ["the {}b"])
    assert encoder.asked == ["ab", "b", "the bb"], "a class without descriptions falls back on the templates"
    mean = (np.array([1, 1]) / np.sqrt(2) + np.array([0, 1])) / 2
    np.testing.assert_allclose(found, [mean / np.linalg.norm(mean), [0, 1]], atol=1e-7)


def test_equal_prompts_are_encoded_once() -> None:
    encoder = Spelling()
    classifier(encoder, Labels(("x", "y"), {"x": ("ab", "ab"), "y": ("ab", "a")}), ["{}"])
    assert encoder.asked == ["ab", "a"]


@pytest.mark.parametrize("templates", [["a photo of a {}."], ["simple-7"], ["openai-80"]])
def test_equal_to_open_clips_builder(tmp_path: Path, templates: Sequence[str]) -> None:
    import open_clip

    from clipkit.models.load import load
    from tests.models import tiny

    tiny.register(tmp_path)
    model = tiny.make("tiny-vit")
    encoder = load(f"tiny-vit:{tiny.save(model, tmp_path / 'a.pt')}")
    names = ("cat", "red fox", "café", "a very long name " * 20, "x")
    texts = resolve_templates(templates)
    expected = open_clip.build_zero_shot_classifier(model, open_clip.get_tokenizer("tiny-vit"), names, texts)
    found = classifier(encoder, Labels(names), texts)
    np.testing.assert_allclose(found, expected.numpy().T, atol=1e-6)
