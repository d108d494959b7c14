"""Scores: several scorers of one record share its opening, its decoding and its encoding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from clipkit.errors import RecordError, UsageError
from clipkit.methods import SCORERS
from clipkit.methods.scorers.base import DATA, PIXELS, TEXT, Sample, Scorer, SetScorer
from clipkit.stream.record import Record, decode_json, encode_json, image_of
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Outcome, Row, Stage
from clipkit.stream.table import Column
from clipkit.stream.whole import WholeStage

if TYPE_CHECKING:
    from clipkit.features.embedder import Embedder, ImageItem
    from clipkit.images.opener import Opener

_DIGITS = 6
_CHEAP = 64  # records at once where no model says how many


@dataclass(slots=True)
class _Item:
    """A record on its way: what its scorers saw of it, and the views that the model is still to see."""

    sample: Sample
    looked: list[Any]
    views: list[dict[str, ImageItem]]  # of each scorer


def make_scorers(names: Iterable[str], options: Mapping[str, Any]) -> list[Scorer]:
    """The scorers of these names, each once. Raises UsageError for a name or an option that is none of them."""
    scorers: list[Scorer] = [SCORERS.get(name)(options) for name in dict.fromkeys(names)]
    if not scorers:
        raise UsageError("no scorer is named", "--by clip, for example; see: clipkit methods scorers")
    for option, value in options.items():
        if value and not any(option in scorer.takes for scorer in scorers):
            raise UsageError(f"none of the scorers named takes the option {option}")
    fields = [field for scorer in scorers for field in scorer.outputs]
    if twice := {field for field in fields if fields.count(field) > 1}:
        raise UsageError(f"two scorers write {min(twice)}", "run them one after the other, with --as")
    return scorers


def columns(fields: Iterable[str]) -> list[Column]:
    """The table of a terminal: the id, and the scores by name; other fields as text."""
    shown = [Column("id", 40, lambda record: record.id or "")]
    names = list(fields)
    for field in names:
        score = field.removeprefix("scores.")
        head = field if score in names else score  # `lang` is a field, and `scores.lang` too
        shown.append(Column(head, max(7, len(head)), partial(_cell, field), right=score != field))
    return shown


def _cell(field: str, record: Record) -> str:
    value = record.lookup(field)
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


class Score(Stage):
    """Adds what its scorers measure, mostly under `scores`; decides nothing.

    config: by (names of scorers), rename (the name in `scores` for the only number there is, or None), options (JSON,
    for the scorers); and what `open_embedder` takes, of which model may be absent where no scorer asks a model.
    With `features`, image features come from that store by id, and text features too where it holds them and is of the
    very caption; other views of the image are still made from the image.
    runtime: as `open_embedder` takes it.
    """

    verb: ClassVar[str] = "score"
    adds: ClassVar[tuple[str, ...]] = ("scores",)
    defaults: ClassVar[dict[str, Any]] = {
        "model": "lite",
        "exact_decode": False,
        "features": None,
        "rename": None,
        "options": {},
    }

    embedder: Embedder | None = None
    opener: Opener
    _taken: str = ""  # what to do about scores that were there already, for the end of the run

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        super().__init__(config, runtime)
        self.scorers = make_scorers(self.config["by"], self.config["options"])
        self._needs = frozenset().union(*(scorer.needs for scorer in self.scorers))
        views = {view for scorer in self.scorers for view in scorer.views}
        self._asks_model = bool(views) or any(scorer.encodes_text for scorer in self.scorers)
        self._stored = bool(self.config["features"])
        if self._stored and "plain" not in views:
            raise UsageError("--features: no scorer named here takes image features", "leave it out")
        self._opens = bool(self._needs & {DATA, PIXELS} or views - ({"plain"} if self._stored else set()))
        self._reads_text = TEXT in self._needs or any(scorer.encodes_text for scorer in self.scorers)
        self.reads = ("image",) * self._opens + ("text",) * self._reads_text
        self._names = self._renamed()

    @property
    def inline(self) -> bool:  # type: ignore[override]
        """Captions alone are measured faster than threads could share them out."""
        return not self._opens and not self._asks_model

    @property
    def opens_images(self) -> bool:
        return self._opens

    @property
    def outputs(self) -> list[str]:
        """The fields it may write, dotted."""
        return list(self._names.values())

    def setup(self) -> None:
        self.batch_size = _CHEAP
        if self._asks_model:
            from clipkit.features.embedder import open_embedder

            self.embedder = open_embedder(self.config, self.runtime)
            self.opener, encoder = self.embedder.opener, self.embedder.encoder
            self.batch_size, self.lanes = encoder.batch_size, encoder.lanes
            views = {view for scorer in self.scorers for view in scorer.views}
            self.item_bytes = self.embedder.item_bytes * max(1, len(views))
        elif self._opens:
            from clipkit.images.opener import Opener

            self.opener = Opener.of(self.runtime)
        for scorer in self.scorers:
            scorer.setup(self.embedder)
        model = str(self.embedder.encoder.identity) if self.embedder else ""
        self._makers = {
            self._names[field]: scorer.maker(field, model) for scorer in self.scorers for field in scorer.outputs
        }

    @property
    def notices(self) -> list[str]:
        return [*(self.embedder.notices if self.embedder else ()), *([self._taken] if self._taken else ())]

    def fingerprint(self) -> dict[str, Any]:
        decided = {field for scorer in self.scorers if isinstance(scorer, SetScorer) for field in scorer.outputs}
        makers = {field: self._makers[name] for field, name in self._names.items() if field not in decided}
        asked = {"by": self.config["by"], "fields": self._names, "makers": makers}
        if self.embedder:
            asked |= {"exact_decode": self.config["exact_decode"], "space": self.embedder.encoder.space}
        return asked

    def stamp(self, record: Record) -> str:
        image = record.get("image")
        opened = self.opener.stamp(image) if self._opens and isinstance(image, str) else ""
        return f"{self.embedder.stamp(record)} {opened}" if self._stored and self.embedder else opened

    def prepare(self, record: Record) -> _Item:
        self._check_free(record)
        sample = Sample(record, text=_text(record) if self._reads_text else None)
        if self._opens:
            sample.data = self.opener.read(image_of(record))
        if PIXELS in self._needs:
            from clipkit.images.decode import decode

            assert sample.data is not None
            sample.pixels = decode(sample.data)
        looked = [scorer.look(sample) for scorer in self.scorers]
        views = self._views(sample, looked) if self._asks_model else [{} for _ in self.scorers]
        sample.data = sample.pixels = None
        return _Item(sample, looked, views)

    def process(self, items: list[Any]) -> list[Outcome]:
        self._encode(items)
        return [_tried(self._added, item) for item in items]

    def close(self) -> None:
        if self.embedder:
            self.embedder.close()

    def _renamed(self) -> dict[str, str]:
        """What each output is called in the record."""
        outputs = [field for scorer in self.scorers for field in scorer.outputs]
        name = self.config["rename"]
        if name is None:
            return {field: field for field in outputs}
        if len(outputs) != 1 or not outputs[0].startswith("scores."):
            raise UsageError("--as names one number, and these are " + ", ".join(outputs), "score one thing at a time")
        if "." in name or not name:
            raise UsageError(f"--as {name!r}: a name without dots, which goes into `scores`")
        return {outputs[0]: f"scores.{name}"}

    def _check_free(self, record: Record) -> None:
        """Raise RecordError where a score is there already that others made, or nobody knows who.

        And where none can be written: a record that fails in the end must not have been measured against others.
        """
        _object(record, "scores")
        makers = _object(record, "via")
        for name, ours in self._makers.items():
            if not name.startswith("scores.") or record.lookup(name) is None:
                continue
            theirs = makers.get(name)
            if theirs != ours:
                said = f"made by {theirs}" if theirs else "and `via` doesn't say who made it"
                beside = "--as OTHER writes beside it, " if len(self._names) == 1 else ""
                hint = f"{beside}clipkit set --rename {name}_old={name} moves it, clipkit set --drop {name} forgets it"
                self._taken = f"{name} of another maker is not written over: {hint}"
                raise RecordError("score-exists", f"{name} is there already, {said}; this is {ours}", hint)

    def _views(self, sample: Sample, looked: list[Any]) -> list[dict[str, ImageItem]]:
        """For each scorer what the model is to see. One look-up for all; equal views are one item."""
        assert self.embedder is not None
        views = {
            (n, name): scorer.view(name, seen)
            for n, (scorer, seen) in enumerate(zip(self.scorers, looked, strict=True))
            for name in scorer.views
        }
        stored = self.embedder.prepare(sample.record) if self._stored else None
        named = {f"{n} {name}": view for (n, name), view in views.items() if not (stored and view.key == "plain")}
        made: dict[str, ImageItem] = {}
        if named:
            assert sample.data is not None
            made = self.embedder.prepare_views(sample.data, named, sample.pixels)
        if self._reads_text and stored and sample.text is not None:
            sample.text_features = self.embedder.stored_text(sample.record, sample.text)
        found: list[dict[str, ImageItem]] = [{} for _ in self.scorers]
        for n, name in views:
            item = made.get(f"{n} {name}") or stored
            assert item is not None
            found[n][name] = item
        return found

    def _encode(self, items: list[_Item]) -> None:
        """Fill in the features, of images and of captions, each in one call for the batch."""
        if self.embedder is None:
            return
        images = [(item, name, image) for item in items for views in item.views for name, image in views.items()]
        rows = self.embedder.encode([image for _, _, image in images]).joint
        for (item, name, _), row in zip(images, rows, strict=True):
            item.sample.features[name] = row
        if any(scorer.encodes_text for scorer in self.scorers):
            waiting = [item.sample for item in items if item.sample.text_features is None]
            for sample, row in zip(
                waiting, self.embedder.encode_texts([str(sample.text) for sample in waiting]), strict=True
            ):
                sample.text_features = row

    def _values(self, item: _Item) -> dict[str, Any]:
        """What the scorers that measure one record at a time say, rounded."""
        values: dict[str, Any] = {}
        for scorer, seen in zip(self.scorers, item.looked, strict=True):
            if not isinstance(scorer, SetScorer):
                values |= scorer.score(item.sample, seen)
        return {field: _rounded(value) if field.startswith("scores.") else value for field, value in values.items()}

    def _added(self, item: _Item) -> Record:
        return self._add(item.sample.record, self._values(item))

    def _add(self, record: Record, values: Mapping[str, Any]) -> Record:
        found = {name: values[field] for field, name in self._names.items() if field in values}
        record.add_all(found, self._makers)
        return record


class ScoreAmongAll(Score, WholeStage):
    """The same where a scorer measures a record among all others. A row is its values, and what those scorers keep."""

    @property
    def inline(self) -> bool:  # type: ignore[override]
        return False

    def process(self, items: list[Any]) -> list[Outcome]:
        self._encode(items)
        return [_tried(self._row, item) for item in items]

    def stamp(self, record: Record) -> str:
        """With the makers of what others may have written already: `fingerprint` leaves them out."""
        names = [self._names[field] for scorer in self._among_all() for field in scorer.outputs]
        taken = [self._makers[name] for name in names if record.lookup(name) is not None]
        return " ".join((super().stamp(record), *taken))

    def learn(self, rows: Rows) -> None:
        for n, scorer in enumerate(self._among_all()):
            scorer.learn(_Kept(rows, n + 1))

    def decide(self, record: Record, row: bytes, number: int) -> Outcome:
        values: dict[str, Any] = decode_json(_parts(row)[0])
        for scorer in self._among_all():
            values |= scorer.score_of(number)
        return self._add(record, values)

    def _among_all(self) -> list[SetScorer]:
        return [scorer for scorer in self.scorers if isinstance(scorer, SetScorer)]

    def _row(self, item: _Item) -> Row:
        values = self._values(item)
        try:
            encoded = encode_json(values)
        except ValueError:
            raise RecordError("not-json", f"{', '.join(values)}: a number that is not finite") from None
        return Row(_pack([encoded, *(scorer.remember(item.sample) for scorer in self._among_all())]))


class _Kept:
    """One scorer's part of the rows; see `base.Remembered`."""

    def __init__(self, rows: Rows, part: int) -> None:
        self._rows, self._part = rows, part

    def __len__(self) -> int:
        return len(self._rows)

    def ids(self) -> Iterator[str]:
        return self._rows.ids()

    def take(self, numbers: Iterable[int]) -> Iterator[bytes]:
        return (_parts(row)[self._part] for row in self._rows.take(numbers))


_pack = msgspec.msgpack.Encoder().encode
_parts = msgspec.msgpack.Decoder(list[bytes]).decode


def score(config: dict[str, Any], runtime: dict[str, Any] | None = None) -> Score:
    """The stage for a config: `ScoreAmongAll` where a scorer needs all records, else `Score`."""
    stage = Score(config, runtime)
    among_all = any(isinstance(scorer, SetScorer) for scorer in stage.scorers)
    return ScoreAmongAll(config, runtime) if among_all else stage


def _tried(make: Callable[[_Item], Outcome], item: _Item) -> Outcome:
    """What comes of an item; a record's error is its own and not the batch's."""
    try:
        return make(item)
    except RecordError as error:
        return error


def _rounded(value: Any) -> Any:
    return round(value, _DIGITS) if isinstance(value, float) else value


def _object(record: Record, name: str) -> dict[str, Any]:
    value = record.get(name) or {}
    if not isinstance(value, dict):
        raise RecordError("bad-field", f"field {name!r} is not an object")
    return value


def _text(record: Record) -> str:
    text = record.get("text")
    if not isinstance(text, str):
        raise RecordError("bad-field", "field 'text' is not a string")
    return text
