"""Class features: what an image is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from clipkit.text.labels import Labels
from clipkit.text.templates import fill


class TextEncoder(Protocol):
    """An encoder, or what caches one's features (`clipkit.features.embedder.Embedder`)."""

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """Unit features f32 [n, d]."""


def classifier(encoder: TextEncoder, labels: Labels, templates: Sequence[str]) -> np.ndarray:
    """Unit class features f32 [c, d]: of each class's prompts the unit features, their mean, made unit again.

    The ensemble of Radford et al., 2021, as open_clip's `build_zero_shot_classifier` makes it, summed in f64.
    """
    groups = [prompts(labels, name, templates) for name in labels.names]
    texts = list(dict.fromkeys(text for group in groups for text in group))
    row = dict(zip(texts, encoder.encode_texts(texts).astype(np.float64), strict=True))
    means = np.stack([np.mean([row[text] for text in group], axis=0) for group in groups])
    unit: np.ndarray = (means / np.linalg.norm(means, axis=1, keepdims=True)).astype(np.float32)
    return unit


def prompts(labels: Labels, name: str, templates: Sequence[str]) -> list[str]:
    """The texts that stand for a class: its descriptions as they are (CuPL, Pratt et al., 2023), else the templates."""
    described = (labels.descriptions or {}).get(name)
    return list(described) if described else [fill(template, name) for template in templates]
