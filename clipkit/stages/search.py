"""Images nearest to a query of texts and images."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from clipkit.errors import RecordError
from clipkit.features.search import best, direction, lines, search_store, similarity
from clipkit.features.store import Store
from clipkit.stages.encoding import EncodingStage
from clipkit.stream.record import Record
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Drop, Emit, Outcome, Row
from clipkit.stream.whole import WholeStage

_SCORE = struct.Struct("<d")
SCORE = "scores.search"


class _Query(EncodingStage):
    """config: as `open_embedder` takes it, and terms (`features.search.term`), top_k, min (None for none)."""

    adds: ClassVar[tuple[str, ...]] = ("scores",)
    defaults: ClassVar[dict[str, Any]] = {**EncodingStage.defaults, "top_k": 10, "min": None, "features": None}

    query: np.ndarray

    def setup(self) -> None:
        super().setup()
        self.query = direction(self.embedder, self.config["terms"])

    def check(self, record: Record) -> None:
        """Raise RecordError where no score can be written: there is one of another model (`score-exists`), say.

        Before anything is decided: a record that fails afterwards would have taken the place of one that does not.
        """
        for name in ("scores", "via"):
            if not isinstance(record.get(name), dict | None):
                raise RecordError("bad-field", f"field {name!r} is not an object")
        maker = (record.get("via") or {}).get(SCORE)
        if record.lookup(SCORE) is not None and maker != self.via:
            said = f"by {maker}" if maker else "nobody knows by whom"
            hint = f"take it out first: clipkit set --drop {SCORE}"
            raise RecordError("score-exists", f"{SCORE} is there already, {said}; this is {self.via}", hint)

    def scored(self, record: Record, score: float) -> Record:
        record.add(SCORE, score, self.via)
        return record


class Search(_Query, WholeStage):
    """Adds `scores.search`, the cosine of image and query, to the `top_k` best records, and drops the others.

    What is kept comes out best first, when all is decided. With `features` it reads no images, only ids.
    """

    verb: ClassVar[str] = "search"
    reads: tuple[str, ...] = ("image",)

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        super().__init__(config, runtime)
        if self.config["features"]:
            self.reads = ()

    def fingerprint(self) -> dict[str, Any]:
        said_otherwise = ("terms", "top_k", "min")
        asked = {name: value for name, value in super().fingerprint().items() if name not in said_otherwise}
        return asked | {"query": hashlib.blake2b(self.query.tobytes(), digest_size=8).hexdigest()}

    def prepare(self, record: Record) -> Any:
        self.check(record)
        return self.embedder.prepare(record)

    def process(self, items: list[Any]) -> list[Outcome]:
        return [Row(_SCORE.pack(similarity(row, self.query))) for row in self.embedder.encode(items).joint]

    def learn(self, rows: Rows) -> None:
        hits = ((_SCORE.unpack(data)[0], name, number) for number, (name, data) in enumerate(rows))
        found = best(hits, self.config["top_k"], self.config["min"])
        self._ranks = {number: rank for rank, (_, _, number) in enumerate(found)}
        self._last = max(self._ranks, default=-1)  # when it comes all are there
        self._hits: dict[int, Record] = {}

    def decide(self, record: Record, row: bytes, number: int) -> Outcome:
        score, least = _SCORE.unpack(row)[0], self.config["min"]
        if number not in self._ranks:
            if least is not None and score < least:
                return Drop(self.verb, "below --min", score, least)
            return Drop(self.verb, "not among the best", score)
        self._hits[self._ranks[number]] = self.scored(record, score)
        if number < self._last:
            return Emit(())
        return Emit([("", hit) for _, hit in sorted(self._hits.items())])


class SearchStore(_Query):
    """Keeps the records that `hits` gives: those of the feature store `features` that are nearest to the query."""

    verb: ClassVar[str] = "search"
    inline: ClassVar[bool] = True

    def hits(self) -> Iterator[Record]:
        """The `top_k` best of the store, best first, with their scores; to be iterated after `setup`."""
        store = Store(self.config["features"])
        found = search_store(store, self.query, self.config["top_k"], self.config["min"])
        for (score, name, _), line in zip(found, lines(store, [hit[1] for hit in found]), strict=True):
            record = Record.parse(line, f"{store.folder}#{name}")
            self.check(record)
            yield self.scored(record, score)

    def process(self, items: list[Any]) -> list[Outcome]:
        return items
