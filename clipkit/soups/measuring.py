"""The held-out pictures that a soup is chosen on: decoded once, and every candidate is measured on all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from clipkit.errors import ClipkitError
from clipkit.evaluation.bootstrap import Doubt, intervals
from clipkit.evaluation.measured import dot
from clipkit.images.transform import normalise
from clipkit.models.base import Encoder, Preprocess
from clipkit.soups.wise import EXACT
from clipkit.stream.spool import Rows
from clipkit.text.labels import Labels
from clipkit.training.evaluating import recalls, right

TOP1: Final = "top1"
RECALL: Final = "r@1"  # the mean of image_to_text_r@1 and text_to_image_r@1
_DIGITS: Final = 6
_NAME: Final = "figure"


class Held(msgspec.Struct, array_like=True, frozen=True):
    """What is remembered of a record besides its picture.

    role: which set it is of. name: its id. content: a digest of the picture's bytes. labels: [] where it has none but
    captions.
    """

    role: str
    name: str
    content: bytes
    labels: list[str]
    captions: list[str]


def packed(held: Held, frame: np.ndarray) -> bytes:
    """A row. frame: what the models see of the picture, before they normalise it, uint8 [h, w, 3]."""
    return frame.tobytes() + msgspec.msgpack.encode(held)


@dataclass(frozen=True)
class Measure:
    """What a candidate came to on n pictures.

    name: top1, or r@1, the mean of both recalls at 1. figures: of pictures that count so often, f64 [n], the figure.
    """

    name: str
    n: int
    figures: Callable[[np.ndarray], float]

    @property
    def value(self) -> float:
        """The figure; of two candidates the same number where they are equally good."""
        return round(self.figures(np.ones(self.n)), EXACT)

    def said(self, doubt: Doubt) -> dict[str, float]:
        """value, and low and high of its interval where there is one, as JSON."""
        bounds = self._interval(lambda weights: self.figures(weights), doubt)
        return {"value": round(self.value, _DIGITS), **bounds}

    def over(self, other: Measure, doubt: Doubt) -> dict[str, float]:
        """The same of how far it is above another on the same pictures, which are drawn in pairs."""
        bounds = self._interval(lambda weights: self.figures(weights) - other.figures(weights), doubt, paired=True)
        return {"value": round(self.value - other.value, _DIGITS), **bounds}

    def _interval(
        self, figures: Callable[[np.ndarray], float], doubt: Doubt, *, paired: bool = False
    ) -> dict[str, float]:
        sure = frozenset[str]() if paired else frozenset((_NAME,))
        found = intervals(lambda weights: {_NAME: figures(weights)}, self.n, doubt, proportions=sure).get(_NAME)
        return {} if found is None else {"low": round(found[0], _DIGITS), "high": round(found[1], _DIGITS)}


class HeldOut:
    """The records of one role among rows, in the order of their names: that of the input means nothing.

    rows: as `packed` makes them. preprocess: of every candidate. labels: what is chosen from, None for all labels there
    are. templates: () for each model's own. workers: threads that run a model that takes one core a call.
    """

    def __init__(
        self,
        rows: Rows,
        role: str,
        preprocess: Preprocess,
        *,
        labels: Labels | None = None,
        templates: Sequence[str] = (),
        workers: int = 1,
    ) -> None:
        self._rows, self._preprocess, self._workers = rows, preprocess, workers
        self._labels, self._templates = labels, tuple(templates)
        self._shape = (*preprocess.size, 3)
        self._bytes = int(np.prod(self._shape))
        self._lock = threading.Lock()
        found = [(self._held(data), number) for number, data in enumerate(rows.data())]
        found = sorted((one for one in found if one[0].role == role), key=lambda one: (one[0].name, one[0].content))
        labelled = [one for one in found if one[0].labels]
        self.figure = TOP1 if labelled else RECALL
        self.left_out = len(found) - len(labelled) if labelled else 0  # captions, where others have labels
        some = labelled or _one_each(found)
        self._all, self._numbers = [held for held, _ in some], [number for _, number in some]

    def __len__(self) -> int:
        return len(self._all)

    def measure(self, encoder: Encoder) -> Measure:
        """What a model comes to: top-1 where there are labels, as `eval classification` has it, else the mean of both
        recalls at 1, as `eval retrieval` has them."""
        images = self._encoded(encoder)
        if self.figure == TOP1:
            hits = right(encoder, [held.labels for held in self._all], images, self._labels, self._templates)
            return Measure(TOP1, len(self), lambda weights: float(dot(weights, hits) / weights.sum()))
        recalled = recalls(encoder, [held.captions for held in self._all], images)
        return Measure(RECALL, len(self), lambda weights: _both(recalled(weights)))

    def check(self) -> None:
        """Raise ClipkitError where no model could be told from another on them."""
        if self.figure == TOP1:
            names = self._labels.names if self._labels else {name for held in self._all for name in held.labels}
            if len(names) < 2:
                hint = "--labels names what else there is to choose from"
                raise ClipkitError(f"one label, {next(iter(names))!r}: every model is right about it", hint)
        elif len({text for held in self._all for text in held.captions}) < 2 or len(self) < 2:
            raise ClipkitError("one picture, or one caption: every model finds it", "name a source with more of them")

    def _encoded(self, encoder: Encoder) -> np.ndarray:
        """Unit features f32 [n, d]."""
        size = encoder.batch_size
        blocks = [self._numbers[start : start + size] for start in range(0, len(self), size)]
        pool = ThreadPoolExecutor(encoder.lanes or self._workers)
        try:
            features = list(pool.map(lambda numbers: encoder.encode_images(self._pixels(numbers))[0], blocks))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C waits for what runs, not for all
        return np.concatenate(features)

    def _pixels(self, numbers: Sequence[int]) -> np.ndarray:
        """What a model takes, f32 [n, 3, h, w]."""
        with self._lock:  # one file
            data = list(self._rows.take(numbers))
        made = np.empty((len(data), 3, *self._preprocess.size), np.float32)
        for one, out in zip(data, made, strict=True):
            frame = np.frombuffer(one, np.uint8, self._bytes).reshape(self._shape)
            normalise(self._preprocess, frame, out)
        return made

    def _held(self, data: bytes) -> Held:
        return msgspec.msgpack.decode(memoryview(data)[self._bytes :], type=Held)


def _one_each(found: Sequence[tuple[Held, int]]) -> list[tuple[Held, int]]:
    """Each picture once, with the captions of all records that show it."""
    made: dict[bytes, tuple[Held, int]] = {}
    for held, number in found:
        first, place = made.get(held.content, (held, number))
        if first is not held:
            first = msgspec.structs.replace(first, captions=[*first.captions, *held.captions])
        made[held.content] = first, place
    return list(made.values())


def _both(figures: Mapping[str, Any]) -> float:
    return float(figures["image_to_text_r@1"] + figures["text_to_image_r@1"]) / 2
