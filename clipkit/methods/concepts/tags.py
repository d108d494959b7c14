"""Which concepts an image shows, as CLIP-style models can tell: a stand-in for a tagger.

Udandarao et al. (2024) tag images with RAM++ and a threshold of 0.7. A cosine has no such scale: one concept's lies
higher than another's on any image, and one image's on any concept. A probability has: the softmax, at the model's own
scale, over all concepts and `BACKGROUND` nouns that stand for whatever else an image may show. It is a function of the
image alone, so parts of a set can be counted apart. docs/concepts.md has what was compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from clipkit.text.classifier import TextEncoder, classifier
from clipkit.text.concepts import forms
from clipkit.text.labels import Labels
from clipkit.text.templates import fill
from clipkit.text.wordnet import nouns

BACKGROUND: Final = 300
THRESHOLD: Final = 0.2


class Tagger:
    """Finds in image features the concepts whose probability is at least `threshold`.

    groups: the names of each concept, whose prompts are averaged. templates: texts with {} for the name.
    scale: the model's logit scale. (Its bias, where it has one, is the same for all and goes.)
    weights: unit class features f64 [c + BACKGROUND, d].
    """

    def __init__(
        self,
        encoder: TextEncoder,
        groups: Sequence[Sequence[str]],
        templates: Sequence[str],
        scale: float,
        threshold: float = THRESHOLD,
    ) -> None:
        # numbers as names: two groups may have a name in common
        texts = [*groups, *((noun,) for noun in background(groups))]
        prompts = {str(at): tuple(fill(t, name) for name in group for t in templates) for at, group in enumerate(texts)}
        self.weights = classifier(encoder, Labels(tuple(prompts), prompts), ()).astype(np.float64)
        self._count, self._scale, self._threshold = len(groups), scale, threshold

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """f64 [n, c] of unit features [n, d]; each row on its own, so that none depends on the batch."""
        out = np.empty((len(features), self._count))
        for row, feature in zip(out, features, strict=True):
            logits = self._scale * np.einsum("cd,d->c", self.weights, feature.astype(np.float64))
            likely = np.exp(logits - logits.max())
            row[:] = likely[: self._count] / likely.sum()
        return out

    def tags(self, features: np.ndarray) -> list[list[int]]:
        """The numbers of the concepts of each row of unit features [n, d], ascending."""
        return [np.flatnonzero(row >= self._threshold).tolist() for row in self.probabilities(features)]


def background(groups: Sequence[Sequence[str]]) -> list[str]:
    """Nouns of WordNet that no concept is called: single words, the first `BACKGROUND` by hash."""
    named = frozenset().union(*(forms(name) for group in groups for name in group))
    words = {word for word in nouns().lemmas() if word.isascii() and word.isalpha() and word.islower()}
    found: list[str] = []
    for word in sorted((word for word in words if 3 <= len(word) <= 12), key=_hash):
        if len(found) == BACKGROUND:
            break
        if not forms(word) & named:
            found.append(word)
    return found


def _hash(word: str) -> bytes:
    return hashlib.blake2b(word.encode()).digest()
