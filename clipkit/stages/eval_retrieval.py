"""Retrieval: which place the captions of an image take among all texts, and the image of a caption among all images."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import numpy as np

from clipkit.errors import RecordError, UsageError
from clipkit.evaluation.measured import Measured
from clipkit.evaluation.retrieval import LOWER, Gallery, Places, Recalls, folded, search
from clipkit.stages.eval_samples import Sample, Samples
from clipkit.stages.eval_texts import EvaluatingTexts, caption
from clipkit.stream.captions import is_negative
from clipkit.stream.fieldnames import mapping_hint
from clipkit.stream.hashing import ticket
from clipkit.stream.record import Record

_BLOCK: Final = 1024  # records in hand at once
_DIGITS: Final = 6


class EvalRetrieval(EvaluatingTexts):
    """R@1, 5 and 10, median rank and mean reciprocal rank both ways; see `evaluation.retrieval` for what they mean.

    Records that show the same picture are one image with the captions of all: the same bytes or, with `features`, the
    same reference in `image`. Texts are the same if they differ at most in blanks.
    config: as `EvaluatingModel` takes it, and captions: only the first so many of each image, None for all; folds: so
    many galleries, into which images go by the hash of their ids, None for one.
    """

    verb: ClassVar[str] = "eval retrieval"
    task: ClassVar[str] = "retrieval"
    wants: ClassVar[str] = "retrieval takes records with an image and its captions in 'texts' or 'text'"
    defaults: ClassVar[dict[str, Any]] = {**EvaluatingTexts.defaults, "captions": None, "folds": None}

    @classmethod
    def suits(cls, record: Record) -> bool:
        captioned = record.get("texts") is not None or record.get("text") is not None
        return (
            captioned and record.get("image") is not None and all(record.get(n) is None for n in ("label", "negative"))
        )

    def fingerprint(self) -> dict[str, Any]:
        return super().fingerprint() | {"captions": self.config["captions"]}

    def settings(self) -> dict[str, Any]:
        return {"captions": self.config["captions"], "folds": self.config["folds"]}

    def truth(self, record: Record) -> Any:
        """[captions, what stands for the picture where nobody sees it]."""
        return [
            captions_of(record)[: self.config["captions"]],
            record.get("image") if self.config["features"] else None,
        ]

    def texts(self, said: Any) -> list[str]:
        texts: list[str] = said[0]
        return texts

    def measure(self, samples: Samples) -> Measured:
        library = Library(samples, self.config["captions"])
        gallery = library.gallery(samples, self.width)
        places = search(gallery, self._folds(library.names), wrong=self.decides)
        recalls = Recalls(gallery, places)
        return Measured(
            library.names,
            recalls,
            recalls.outcomes,
            counts={
                name: recalls.captions
                for name in recalls(np.ones(len(library.names)))
                if name.startswith("text_to_image")
            },
            lower=LOWER,
            proportions=frozenset(name for name in recalls.outcomes if "r@" in name),
            groups=library.groups,
            tables={"gallery": library.described(places), "ranks": places.curves()},
            said=lambda sample: {"retrieval": library.said(sample, gallery, places)},
            notices=[*library.notices, *_unmeant(recalls)],
        )

    def _folds(self, names: Sequence[str]) -> list[np.ndarray] | None:
        count = self.config["folds"]
        if count is None:
            return None
        if len(names) < 2 * count:
            raise UsageError(f"{count} folds of {len(names)} images", "a fold has two images at least")
        drawn = [(ticket(name, self.config["seed"], self.verb), name) for name in names]
        return list(folded(np.array(sorted(range(len(names)), key=drawn.__getitem__)), count))


class Library:
    """Records as images and texts: each picture once, each distinct text once.

    names, groups: of each image, those of the first of its records. texts: as they were first written.
    """

    def __init__(self, samples: Samples, most: int | None) -> None:
        """most: captions of an image that count."""
        pictures: dict[Any, int] = {}
        numbers: dict[str, int] = {}
        has: list[list[int]] = []
        self.names: list[str] = []
        self.texts: list[str] = []
        self._image: list[int] = []  # of each record
        self._own: list[list[int]] = []  # of each record the texts that count, in its order
        groups: list[str] = []
        for place, sample in enumerate(samples.all):
            image = pictures.setdefault(_picture(sample, place), len(pictures))
            if image == len(has):
                has.append([])
                self.names.append(sample.name)
                groups.append(sample.group or "")
            own = []
            for text in sample.said[0][: None if most is None else max(0, most - len(has[image]))]:
                number = numbers.setdefault(_key(text), len(numbers))
                if number == len(self.texts):
                    self.texts.append(text)
                own.append(number)
            has[image] += own
            self._image.append(image)
            self._own.append(own)
        self.groups = None if samples.groups is None else groups
        self.captions = np.array(sorted({(image, text) for image, some in enumerate(has) for text in some}))
        self._images_of = np.bincount(self.captions[:, 1])
        self._short = 0 if most is None else sum(len(some) < most for some in has)
        self._most = most

    def gallery(self, samples: Samples, width: int) -> Gallery:
        """With the features that the rows hold."""
        images = np.empty((len(self.names), width), np.float32)
        texts = np.empty((len(self.texts), width), np.float32)
        for start in range(0, len(samples), _BLOCK):
            for place, vectors in enumerate(samples.each(start, start + _BLOCK), start):
                own = self._own[place]
                images[self._image[place]] = vectors[0]
                texts[own] = vectors[1 : 1 + len(own)]
        return Gallery(images, texts, self.captions)

    def described(self, places: Places) -> dict[str, Any]:
        """What there was to choose from, for the run."""
        found = {
            "images": len(self.names),
            "texts": len(self.texts),
            "captions": len(self.captions),
            "shared_texts": int((self._images_of > 1).sum()),
        }
        folds = [{"images": images, "texts": texts} for images, texts in places.sizes]
        return found | ({"folds": folds} if len(folds) > 1 else {})

    @property
    def notices(self) -> list[str]:
        said = []
        if again := len(self._image) - len(self.names):
            said.append(f"records that show a picture again, and count as further captions of it: {again:,}")
        if shared := int((self._images_of > 1).sum()):
            said.append(f"texts that several images have, right for each of them: {shared:,}")
        if self._short:
            said.append(f"images with fewer than {self._most} captions: {self._short:,} of {len(self.names):,}")
        return said

    def said(self, record: int, gallery: Gallery, places: Places) -> Mapping[str, Any]:
        """What `--per-sample` says of a record: the ranks of its image and of its captions, and what came nearest."""
        assert places.wrong_texts is not None and places.wrong_images is not None
        image = self._image[record]
        own = np.array(list(dict.fromkeys(self._own[record])), np.int64)
        positions = np.searchsorted(
            self.captions[:, 0] * len(self.texts) + self.captions[:, 1], image * len(self.texts) + own
        )
        rival = int(places.wrong_texts[image])
        to_text: dict[str, Any] = {"rank": int(places.images[image]), "wrong": None}
        if rival >= 0:
            whose = self.captions[self.captions[:, 1] == rival, 0][0]
            to_text["wrong"] = {"id": self.names[whose], "text": self.texts[rival]}
            to_text["wrong"]["similarity"] = _cosine(gallery.images[image], gallery.texts[rival])
        to_image = []
        for position, text in zip(positions.tolist(), own.tolist(), strict=True):
            other = int(places.wrong_images[position])
            found: dict[str, Any] = {"text": self.texts[text], "rank": int(places.captions[position])}
            found["similarity"] = _cosine(gallery.images[image], gallery.texts[text])
            found["wrong"] = None
            if other >= 0:
                close = _cosine(gallery.images[other], gallery.texts[text])
                found["wrong"] = {"id": self.names[other], "similarity": close}
            to_image.append(found)
        return {"image_to_text": to_text, "text_to_image": to_image}


def captions_of(record: Record) -> list[str]:
    """All of `texts`, else `text`, without those that are blank or negative. Raises RecordError where none is left."""
    listed = record.get("texts")
    if listed is not None and not isinstance(listed, list):
        raise RecordError("bad-field", "field 'texts' is not a list", "expected texts, or objects with a 'text'")
    meant = [value for value in listed or () if not is_negative(value)]
    found = [caption(value) for value in meant or [record.get("text")]]
    if listed is None and record.get("text") is None:
        raise RecordError("missing-field", "no field 'texts' or 'text'", mapping_hint(["text"], record))
    texts = [text for text in found if text is not None]
    if not texts:
        raise RecordError("no-caption", "none of its captions is a text", "retrieval needs one at least")
    return texts


def _picture(sample: Sample, place: int) -> Any:
    """What is equal for records of one picture."""
    return sample.content or sample.said[1] or place


def _key(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return round(float(np.einsum("d,d->", a.astype(np.float64), b.astype(np.float64))), _DIGITS)


def _unmeant(recalls: Recalls) -> list[str]:
    names = ", ".join(recalls.unmeant)
    return [f"no query has enough wrong answers to fail, so that these say nothing: {names}"] if names else []
