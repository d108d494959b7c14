"""Which captions of an example are shown in an epoch: drawn by hash, so that no order and no process decides it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from clipkit.errors import RecordError, UsageError
from clipkit.stream.captions import ORIGINAL, Caption, source_of
from clipkit.stream.hashing import share_of, ticket
from clipkit.training.examples import Example
from clipkit.training.settings import Settings

_LEAST_WORDS: Final = 2
_IDEOGRAPHS: Final = "\u2e80"  # from here on scripts mostly put no blanks between words

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Shown:
    """texts: the captions that stand for a picture, the one that counts most first. negatives: what it is not.
    spoken: `texts`, each behind the words of its source (`Settings.prefixes`): what the model reads."""

    texts: list[str]
    spoken: list[str]
    negatives: list[str]


class Texts:
    """Draws captions.

    Without `Settings.weights` the caption in use is shown, and where a loss looks at `many`, others beside it, all
    alike. With them a caption is drawn among those of the sources that are named, the rest is never shown. A source is
    named as it is or by what its name begins with before a `/`: `laclip` stands for `laclip/1`, `laclip/2`, ...; the
    longest such name counts. `original` are also all that nobody else wrote: plain texts, and what has neither a source
    nor a model. Captions of one name share its weight, so that {"original": 1, "laclip": 4} draws evenly
    among an original and its four rewrites (Fan et al., 2023), and {"original": 1, "veclip": 1} shows the alt-text
    every other time (Lai et al., 2024), however many captions there are. Several are drawn one after the other by
    weight, none twice (Efraimidis and Spirakis, 2006).

    As in LaCLIP, a caption of fewer than two words that somebody wrote later gives way to the original.

    many: captions of an example, at most. negatives: how many of what is not true.
    """

    def __init__(self, settings: Settings, many: int = 1, negatives: int = 0) -> None:
        """Raises UsageError for weights that no caption can be drawn by."""
        self._weights, self._prefixes, self._seed = settings.weights, settings.prefixes, settings.seed
        self._many, self._negatives = many, negatives
        for source, weight in self._weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise UsageError(f"the weight of captions by {source!r} is {weight}", "0 is never, 2 is twice as often")
        if self._weights and not any(self._weights.values()):
            raise UsageError("every source of captions has the weight 0: none would be shown")

    def shown(self, example: Example, epoch: int) -> Shown:
        """Those of an example in an epoch. Raises RecordError `missing-text` where none may be shown."""
        captions = self._drawn(example, epoch)
        if not captions:
            raise RecordError("missing-text", "no caption of a source that has a weight")
        texts = [caption.text for caption in captions]
        spoken = [self._spoken(caption) for caption in captions] if self._prefixes else texts
        negatives: list[str] = []
        if self._negatives and example.negatives:
            kept = self._some(example, epoch, example.negatives, [1.0] * len(example.negatives), "negative")
            negatives = [caption.text for caption in kept[: self._negatives]]
        return Shown(texts, spoken, negatives)

    def _drawn(self, example: Example, epoch: int) -> list[Caption]:
        captions = example.captions
        if self._weights:
            drawn = self._some(example, epoch, captions, self._shares(captions), "caption")
            return list(dict.fromkeys(_or_original(caption, captions) for caption in drawn))[: self._many]
        if self._many == 1 or len(captions) <= 1:
            return list(captions[:1])
        others = captions[1:]
        drawn = self._some(example, epoch, others, [1.0] * len(others), "caption")
        return [captions[0], *drawn[: self._many - 1]]

    def _shares(self, captions: Sequence[Caption]) -> list[float]:
        """The weight of each caption: that of the name its source goes by, over the captions of that name."""
        names = [named(caption, self._weights) for caption in captions]
        return [0.0 if name is None else self._weights[name] / names.count(name) for name in names]

    def _some(self, example: Example, epoch: int, among: Sequence[_T], weights: list[float], purpose: str) -> list[_T]:
        """All of weight above 0, in the order in which they are drawn."""
        if len(among) == 1:
            return list(among) if weights[0] else []
        keys = [
            (-math.log(1 - share_of(ticket(example.name, self._seed, f"{purpose}/{epoch}/{number}"))) / weight, number)
            for number, weight in enumerate(weights)
            if weight
        ]
        return [among[number] for _, number in sorted(keys)]

    def _spoken(self, caption: Caption) -> str:
        """A caption behind the words that say where it is from (Saito et al., 2023)."""
        name = named(caption, self._prefixes)
        return caption.text if name is None else f"{self._prefixes[name]} {caption.text}"


def named(caption: Caption, among: Mapping[str, object]) -> str | None:
    """The name by which a caption's source is listed: its own, or the longest that it continues with a `/`."""
    name, slash = source_of(caption), "/"
    while name not in among:
        name, slash, _ = name.rpartition("/")
        if not slash:
            return None
    return name


def _or_original(caption: Caption, captions: Sequence[Caption]) -> Caption:
    if source_of(caption) == ORIGINAL or _words(caption.text) >= _LEAST_WORDS:
        return caption
    return next((other for other in captions if source_of(other) == ORIGINAL), caption)


def _words(text: str) -> int:
    if text.isascii():
        return len(text.split())
    return len(text.split()) + sum(character >= _IDEOGRAPHS for character in text)
