"""Figures while a model learns: zero-shot where records have labels, retrieval where they have captions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import numpy as np

from clipkit.errors import ClipkitError, RecordError
from clipkit.evaluation.retrieval import Gallery, Recalls, search
from clipkit.images.decode import decode
from clipkit.images.opener import Opener
from clipkit.models.base import Encoder
from clipkit.stream.captions import captions
from clipkit.stream.engine import available_cores
from clipkit.stream.record import Record, image_of
from clipkit.stream.spool import Rows
from clipkit.text.classifier import classifier
from clipkit.text.labels import Labels

FIGURES: Final = ("top1", *(f"{way}_r@{k}" for k in (1, 5) for way in ("image_to_text", "text_to_image")))
_BLOCK: Final = 64  # pictures in hand at once
_DIGITS: Final = 6


class Shown(msgspec.Struct, array_like=True, frozen=True):
    """A record to measure on."""

    image: str
    labels: list[str]
    captions: list[str]


def row_of(record: Record) -> bytes:
    """A record as a row. Raises RecordError where it has neither a label nor a caption, or no picture."""
    label = record.get("label")
    labels = [name for name in (label if isinstance(label, list) else [label]) if isinstance(name, str) and name]
    texts = [caption.text for caption in captions(record)]
    if not labels and not texts:
        raise RecordError("missing-text", "nothing to measure on: neither 'label' nor 'text' nor 'texts'")
    return msgspec.msgpack.encode(Shown(image_of(record), labels, texts))


@dataclass
class Evaluation:
    """Records to measure a model on, each time in the same way. failed: what could not be read, by kind of error."""

    rows: Rows
    opener: Opener
    failed: dict[str, int] = field(default_factory=dict)

    def measure(self, encoder: Encoder) -> dict[str, Any]:
        """`n` pictures and those of FIGURES that can be: top1 over the records with labels, among all labels there
        are, with the model's usual prompt; recalls over those with captions, as `eval retrieval` has them.

        Raises ClipkitError where no picture can be read.
        """
        shown, images = self._encoded(encoder)
        found: dict[str, Any] = {"n": len(shown)}
        labelled = [row for row, one in enumerate(shown) if one.labels]
        if len({name for row in labelled for name in shown[row].labels}) > 1:
            hits = right(encoder, [shown[row].labels for row in labelled], images[labelled])
            found["top1"] = round(float(hits.mean()), _DIGITS)
        captioned = [row for row, one in enumerate(shown) if one.captions]
        if len(captioned) > 1:
            recalled = recalls(encoder, [shown[row].captions for row in captioned], images[captioned])
            figures = recalled(np.ones(len(captioned)))
            found |= {name: round(figures[name], _DIGITS) for name in FIGURES[1:] if not np.isnan(figures[name])}
        if len(found) == 1:
            raise ClipkitError("--eval: one label or one caption says nothing of a model", "add others")
        return found

    def _encoded(self, encoder: Encoder) -> tuple[list[Shown], np.ndarray]:
        """What could be read, and its unit features f32 [n, d]."""
        self.failed.clear()
        shown: list[Shown] = []
        features = [np.zeros((0, encoder.identity.dim), np.float32)]
        with ThreadPoolExecutor(available_cores()) as pool:
            for block in self._blocks():
                read = pool.map(lambda one: self._pixels(one, encoder), block)
                there = [(one, pixels) for one, pixels in zip(block, read, strict=True) if pixels is not None]
                if there:
                    shown += [one for one, _ in there]
                    features.append(encoder.encode_images([pixels for _, pixels in there])[0])
        if not shown:
            raise ClipkitError(f"--eval: none of its pictures can be read: {', '.join(self.failed)}")
        return shown, np.concatenate(features)

    def _blocks(self) -> Iterator[list[Shown]]:
        for start in range(0, len(self.rows), _BLOCK):
            numbers = range(start, min(start + _BLOCK, len(self.rows)))
            yield [msgspec.msgpack.decode(row, type=Shown) for row in self.rows.take(numbers)]

    def _pixels(self, one: Shown, encoder: Encoder) -> np.ndarray | None:
        try:
            return encoder.preprocess(decode(self.opener.read(one.image)))
        except RecordError as error:
            self.failed[error.kind] = self.failed.get(error.kind, 0) + 1
            return None


def headline(figures: Mapping[str, Any]) -> tuple[str, float]:
    """The figure that says which of several evaluations is best: top1, else the mean of both recalls at 1 (or at 5,
    where the first cannot be)."""
    if "top1" in figures:
        return "top1", figures["top1"]
    for k in (1, 5):
        both = [figures[name] for way in ("image_to_text", "text_to_image") if (name := f"{way}_r@{k}") in figures]
        if both:
            return f"r@{k}", round(sum(both) / len(both), _DIGITS)
    raise AssertionError("measure gives one of them")


def right(
    encoder: Encoder,
    said: Sequence[Sequence[str]],
    images: np.ndarray,
    labels: Labels | None = None,
    templates: Sequence[str] = (),
) -> np.ndarray:
    """Whether the class nearest to each picture is one of its labels, bool [n].

    said: the labels of each. images: unit features f32 [n, d]. labels: what is chosen from, None: all that are said.
    templates: how a label is said to the model, () for its own prompt.
    """
    chosen = labels or Labels(tuple(sorted({name for some in said for name in some})))
    text = classifier(encoder, chosen, templates or encoder.default_templates)
    answers = (images.astype(np.float64) @ text.astype(np.float64).T).argmax(axis=1).tolist()
    return np.array([chosen.names[answer] in some for answer, some in zip(answers, said, strict=True)])


def recalls(encoder: Encoder, texts: Sequence[Sequence[str]], images: np.ndarray) -> Recalls:
    """Retrieval both ways between pictures, unit features f32 [n, d], and the captions of each."""
    number: dict[str, int] = {}
    pairs = {
        (row, number.setdefault(" ".join(text.split()), len(number))) for row, some in enumerate(texts) for text in some
    }
    gallery = Gallery(images, encoder.encode_texts(list(number)), np.array(sorted(pairs)))
    return Recalls(gallery, search(gallery))
