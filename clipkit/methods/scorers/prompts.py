"""The zero-shot probability of a concept that the user puts in words."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from clipkit.errors import UsageError
from clipkit.methods.scorers.base import Sample, Scorer

if TYPE_CHECKING:
    from clipkit.features.embedder import Embedder

_FORM = "for example: --concept 'a watermark|a clean photo', or --concept NAME='this|that'"
_NAMED = re.compile(r"([^\W\d][\w-]*)=(.*)", re.DOTALL)


def parse_concepts(given: Iterable[str]) -> dict[str, list[str]]:
    """`NAME=this|that|...` or `this|that|...` to {name: texts}; without a name the first text gives it, as a word.

    Raises UsageError for a concept of one text, texts that are the same, and two concepts of one name.
    """
    concepts: dict[str, list[str]] = {}
    for word in given:
        named = _NAMED.fullmatch(word)
        name, body = (named[1], named[2]) if named else ("", word)
        texts = [text.strip() for text in body.split("|")]
        if len(texts) < 2 or not all(texts):
            raise UsageError(f"--concept takes two texts or more, with | between them, not {word!r}", _FORM)
        if len(set(texts)) < len(texts):
            raise UsageError(f"--concept {word!r} names a text twice", "each must say something else")
        name = name or _word(texts[0])
        if not name:
            raise UsageError(f"--concept {word!r} has no letters to make a name of", "put NAME= in front")
        if name in concepts:
            raise UsageError(f"two concepts are called {name!r}", "put NAME= in front of one")
        concepts[name] = texts
    if not concepts:
        raise UsageError("prompts: no concept is named", _FORM)
    return concepts


class Prompts(Scorer):
    """`scores.NAME` for each concept, 0 to 1: the probability of its first text against its others.

    The softmax of logit scale times cosine (Radford et al., 2021), over the texts as they are given: no template is put
    around them. options: concepts, as `parse_concepts` takes them.
    """

    name: ClassVar[str] = "prompts"
    takes: ClassVar[tuple[str, ...]] = ("concepts",)
    views: ClassVar[tuple[str, ...]] = ("plain",)

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._concepts = parse_concepts(options.get("concepts") or ())
        self.outputs = tuple(f"scores.{name}" for name in self._concepts)

    def maker(self, field: str, model: str) -> str:
        texts = self._concepts[field.removeprefix("scores.")]
        digest = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:8]
        return f"{self.name}@{digest}/{model}"

    def setup(self, embedder: Embedder | None) -> None:
        assert embedder is not None
        self._scale = embedder.encoder.logit_scale
        self._texts = {name: embedder.encode_texts(texts) for name, texts in self._concepts.items()}

    def score(self, sample: Sample, looked: Any) -> dict[str, Any]:
        feature = sample.features["plain"].astype(np.float64)
        return {f"scores.{name}": self._probability(feature, texts) for name, texts in self._texts.items()}

    def _probability(self, feature: np.ndarray, texts: np.ndarray) -> float:
        """Of the first of the texts, f32 [c, d]."""
        logits = self._scale * np.einsum("cd,d->c", texts.astype(np.float64), feature)
        likely = np.exp(logits - logits.max())
        return float(likely[0] / likely.sum())


def _word(text: str) -> str:
    """A text as the name of a field: `a clean photo` as `a_clean_photo`."""
    return "_".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))
