"""For each class the best of the captions that name it: REAL-Linear's training set (Parashar et al., 2024)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np

from clipkit.errors import RecordError
from clipkit.features.search import similarity
from clipkit.methods.concepts.retrieve import share_out
from clipkit.methods.concepts.synonyms import listed, synonyms_of
from clipkit.stages.vectors import FeatureItem, FeatureStage
from clipkit.stream.fieldnames import missing_field
from clipkit.stream.hashing import name_of, share, ticket
from clipkit.stream.record import Record
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Drop, Outcome, Row
from clipkit.stream.whole import WholeStage
from clipkit.text.classifier import classifier
from clipkit.text.concepts import ConceptMatcher
from clipkit.text.labels import Labels

VERB: Final = "concepts retrieve"
SCORE: Final = "scores.retrieve"
# A record's row: one of these for each class that it may go to, so none where its caption names no class.
_FIT: Final = np.dtype([("ticket", "<u8"), ("class", "<u8"), ("score", "<f8")])

_NO_CLASS: Final = Drop(VERB, "no-class")


class _Retrieval(WholeStage):
    """What a caption names, who gets it, and its label; how well it fits a class is a subclass's to say.

    config: labels (`Labels.to_json`); synonyms (class -> list, None for WordNet's); per_class.
    """

    reads: tuple[str, ...] = ("text",)
    adds: ClassVar[tuple[str, ...]] = ("label", "scores")
    defaults: ClassVar[dict[str, Any]] = {"synonyms": None, "per_class": 500}
    steps: tuple[str, ...] = ("no-class", "not-among-best")

    via: str

    def setup(self) -> None:
        super().setup()
        self.labels = Labels.from_json(self.config["labels"])
        self._synonyms = synonyms_of(self.labels.names, self.config["synonyms"])
        self._matcher = ConceptMatcher(self._synonyms.groups)
        self._renamed = self._called_otherwise() if self.config["synonyms"] is None else []
        self._named = self._kept = np.zeros(len(self.labels.names), int)
        self._goes: dict[int, tuple[int, float]] = {}

    def _called_otherwise(self) -> list[str]:
        """The classes of which no description holds a name that captions are searched for."""
        said = self.labels.descriptions or {}
        return [
            name
            for number, name in enumerate(self.labels.names)
            if name in said and not any(number in self._matcher.find(text) for text in said[name])
        ]

    def candidates(self, record: Record) -> list[int]:
        """The classes that a record may go to, in the order of the labels: those that its caption names, and of these,
        where it has a label already, that one.

        Raises RecordError where the label is none of them (`label-exists`), and where a score could not be written:
        before anything is decided, as a record that fails afterwards would have taken the place of another.
        """
        text = record["text"]
        if not isinstance(text, str):
            raise RecordError("bad-field", "field 'text' is not a string")
        found = sorted(self._matcher.find(text))
        if found:
            self._check(record)
        label = record.get("label")
        if not found or label is None:
            return found
        own = [number for number in found if label in (self.labels.names[number], [self.labels.names[number]])]
        if not own:
            said = " and ".join(repr(self.labels.names[number]) for number in found)
            hint = "take it out first: clipkit set --drop label"
            raise RecordError("label-exists", f"label is {label!r} already, and its text names {said}", hint)
        return own

    def _check(self, record: Record) -> None:
        for name in ("scores", "via"):
            if not isinstance(record.get(name), dict | None):
                raise RecordError("bad-field", f"field {name!r} is not an object")
        if record.lookup(SCORE) is not None and (record.get("via") or {}).get(SCORE) != self.via:
            hint = f"take it out first: clipkit set --drop {SCORE}"
            raise RecordError("score-exists", f"{SCORE} is there already, and not of {self.via}", hint)

    def drawn(self, record: Record) -> int:
        """What decides between records that fit a class equally well."""
        return int.from_bytes(ticket(name_of(record), 0, self.verb)[:8])

    def learn(self, rows: Rows) -> None:
        counts = np.asarray(rows.lengths, np.int64) // _FIT.itemsize
        if not counts.any():
            return
        fits = np.memmap(rows.file, _FIT, "r", shape=int(counts.sum()))
        classes = fits["class"].astype(np.int64)
        records = np.repeat(np.arange(len(rows)), counts)
        taken = share_out(records, classes, fits["score"], fits["ticket"], self.config["per_class"])
        self._named = np.bincount(classes, minlength=len(self.labels.names))
        self._kept = np.bincount(classes[taken], minlength=len(self.labels.names))
        self._goes = {int(records[pair]): (int(classes[pair]), float(fits["score"][pair])) for pair in taken}

    def decide(self, record: Record, row: bytes, number: int) -> Outcome:
        if not row:
            return _NO_CLASS
        if number not in self._goes:
            best = float(np.frombuffer(row, _FIT)["score"].max())
            return Drop(self.verb, "not-among-best", self.scored(best).get(SCORE))
        to, score = self._goes[number]
        made: dict[str, Any] = self.scored(score)
        if record.get("label") is None:
            made["label"] = self.labels.names[to]
        if made:
            record.add_all(made, dict.fromkeys(made, self.via))
        return record

    def scored(self, score: float) -> dict[str, float]:
        """The fields that tell how well a record fits its class."""
        return {SCORE: score}

    @property
    def facts(self) -> dict[str, Any]:
        """named: captions that name each class. kept: how many of them were kept for it."""
        rows = zip(self.labels.names, self._named.tolist(), self._kept.tolist(), strict=True)
        return {"classes": {name: {"named": named, "kept": kept} for name, named, kept in rows}}

    @property
    def notices(self) -> list[str]:
        most = self.config["per_class"]
        counted = sorted(zip(self._kept.tolist(), self.labels.names, strict=True))
        short = [f"{name} {kept:,}" for kept, name in counted if kept < most]
        said = [f"fewer than {most:,} for {len(short):,} of {len(counted):,} classes: {listed(short)}"] if short else []
        if self._renamed:
            many = f"{len(self._renamed):,} described by names that no caption was searched for"
            said.append(f"{many}, which --synonyms FILE would give: {listed(self._renamed)}")
        return [*super().notices, *said, *self._synonyms.notices]


@dataclass(slots=True)
class _Item:
    """A record whose caption names these classes; `what` is None where it names none."""

    drawn: int
    classes: list[int]
    what: FeatureItem | None


class Retrieve(_Retrieval, FeatureStage):
    """Keeps of each class the `per_class` records whose caption names it and, or whose image, is most like its prompts.

    Adds `label` and `scores.retrieve`: the cosine of the record's features and the class's, as zeroshot makes these.
    config: as `open_embedder` takes it, and labels, synonyms, per_class; templates ([] = the model's own); by: text
    (REAL's choice) or image. Only captions that name a class are encoded, and only their images opened.
    """

    verb: ClassVar[str] = VERB
    defaults: ClassVar[dict[str, Any]] = {
        **FeatureStage.defaults,
        **_Retrieval.defaults,
        "templates": [],
        "by": "text",
    }

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        super().__init__(config, runtime)
        self.reads = ("text",)  # an image is needed only where the caption names a class

    @property
    def opens_images(self) -> bool:
        return self.config["by"] == "image" and not self.config["features"]

    def setup(self) -> None:
        super().setup()
        templates = tuple(self.config["templates"] or self.encoder.default_templates)
        self._classes = classifier(self.embedder, self.labels, templates).astype(np.float64)

    def fingerprint(self) -> dict[str, Any]:
        """About rows alone: how many are kept may change between runs."""
        asked = {name: value for name, value in super().fingerprint().items() if name != "per_class"}
        return asked | {"classes": hashlib.blake2b(self._classes.tobytes(), digest_size=8).hexdigest()}

    def prepare(self, record: Record) -> _Item:
        classes = self.candidates(record)
        if classes and self.opens_images and record.get("image") is None:
            raise missing_field("image", record)
        return _Item(self.drawn(record), classes, self.ready(record) if classes else None)

    def process(self, items: list[Any]) -> list[Outcome]:
        found = iter(self.features_of([item.what for item in items if item.what]))
        return [self._row(item, next(found)) if item.what else Row(b"") for item in items]

    def _row(self, item: _Item, features: np.ndarray | RecordError) -> Outcome:
        if isinstance(features, RecordError):
            return features
        fits = [(item.drawn, number, similarity(features, self._classes[number])) for number in item.classes]
        return Row(np.array(fits, _FIT).tobytes())


class RetrieveRandom(_Retrieval):
    """Keeps of each class `per_class` records whose caption names it, at random: the control. Adds `label`.

    config: labels, synonyms, per_class; seed. No model is loaded.
    """

    verb: ClassVar[str] = VERB
    inline: ClassVar[bool] = True
    defaults: ClassVar[dict[str, Any]] = {**_Retrieval.defaults, "seed": 0}

    def setup(self) -> None:
        super().setup()
        self.via = f"{self.verb}/random"

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._row(record) for record in items]

    def _row(self, record: Record) -> Outcome:
        try:
            fits = [(self.drawn(record), number, self._share(record, number)) for number in self.candidates(record)]
        except RecordError as error:
            return error
        return Row(np.array(fits, _FIT).tobytes())

    def _share(self, record: Record, number: int) -> float:
        name = name_of(record)
        name = name.encode("utf-8", "surrogatepass") if isinstance(name, str) else name
        return share(name + b"\0" + self.labels.names[number].encode(), self.config["seed"], self.verb)

    def scored(self, score: float) -> dict[str, float]:
        return {}
