"""What clusters are about: names from a list of concepts, typical and odd members."""

from __future__ import annotations

import math
import struct
from array import array
from bisect import insort
from collections.abc import Iterator
from typing import Any, ClassVar, Final, TypeAlias

import msgspec

from clipkit.errors import ClipkitError, RecordError, UsageError
from clipkit.features.centroids import Centroids
from clipkit.methods import naming
from clipkit.stages.encoding import EncodingStage
from clipkit.stream.record import Record
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Outcome, Row
from clipkit.stream.whole import WholeStage
from clipkit.text.classifier import classifier
from clipkit.text.labels import Labels

_HEAD: Final = struct.Struct("<Id")  # cluster, distance; then what to show, as msgpack


class _Cluster(msgspec.Struct):
    """The field that `clipkit cluster` adds."""

    id: int
    dist: float


Member: TypeAlias = tuple[float, str, str, str]  # distance, id, image, text; "" where there is none


class Describe(EncodingStage, WholeStage):
    """One record a cluster that has records, largest first, instead of the records of `clipkit cluster`.

    config: as `open_embedder` takes it, but model None is that of the centroids; centroids: their file; concepts
    (`Labels.to_json`); templates ([] = the model's own); top: names of each; members: typical ones, and odd ones.
    Opens no image: distances are those that the records carry.
    """

    verb: ClassVar[str] = "cluster describe"
    defaults: ClassVar[dict[str, Any]] = {
        **EncodingStage.defaults,
        "model": None,
        "templates": [],
        "top": 3,
        "members": 5,
    }

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        super().__init__(config, runtime)
        self.concepts = Labels.from_json(self.config["concepts"], "concepts")
        if len(self.concepts.names) < 2:
            only = self.concepts.names[0]
            raise UsageError(f"one concept, {only!r}, would name every cluster", "name what else they may be about")
        self._facts: dict[str, Any] = {}

    @property
    def summarises(self) -> bool:
        return True

    def setup(self) -> None:
        self.centroids = Centroids.load(self.config["centroids"])
        named = self.config["model"]
        self.config = {**self.config, "model": named or self.centroids.model.rpartition("@")[0]}
        try:
            super().setup()
        except UsageError as error:
            if named:
                raise
            hint = "give it with --model: no folder is remembered of a model that lies in one"
            raise ClipkitError(f"the centroids are of {self.centroids.model}: {error.message}", hint) from None
        self.centroids.require(str(self.encoder.identity), self.centroids.by, self.encoder.identity.dim)
        templates = tuple(self.config["templates"] or self.encoder.default_templates)
        self._features = classifier(self.embedder, self.concepts, templates)
        self.batch_size, self.lanes, self.item_bytes = 256, 0, 1 << 12  # a record costs next to nothing
        self._found: dict[int, _Members] = {}

    def fingerprint(self) -> dict[str, Any]:
        """About rows alone: names may be chosen anew from other concepts."""
        return {"centroids": self.centroids.via, "by": self.centroids.by}

    def stamp(self, record: Record) -> str:
        return ""

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._row(record) for record in items]

    def _row(self, record: Record) -> Outcome:
        try:
            cluster, distance = self._cluster(record)
        except RecordError as error:
            return error
        shown = (
            record.id or "",
            _shown(record, "image"),
            _shown(record, "text") if self.centroids.by == "text" else "",
        )
        return Row(_HEAD.pack(cluster, distance) + msgspec.msgpack.encode(shown))

    def _cluster(self, record: Record) -> tuple[int, float]:
        """Number and distance. Raises RecordError for a record that is in none of these clusters."""
        value = record.get("cluster")
        if value is None:
            hint = "put it there with: clipkit cluster SOURCE --k K --save-centroids FILE"
            raise RecordError("missing-field", "no field 'cluster'", hint)
        via = record.get("via")
        made = via.get("cluster") if isinstance(via, dict) else None
        if made != self.centroids.via:
            said = f"its cluster is of {made}" if made else "it does not say of which centroids its cluster is (via)"
            hint = "name the file that clipkit cluster wrote with these records; it is written after the last of them, "
            hint += "so describe is a command of its own, not the end of that pipe"
            raise RecordError("other-centroids", f"{said}, {self.config['centroids']} holds {self.centroids.via}", hint)
        try:
            found = msgspec.convert(value, _Cluster)
        except msgspec.ValidationError:
            found = None
        if found is None or not 0 <= found.id < len(self.centroids) or not math.isfinite(found.dist):
            expected = f'{{"id": 0 to {len(self.centroids) - 1}, "dist": a number}}'
            raise RecordError("bad-field", f"field 'cluster' is not {expected}", "clipkit cluster writes it")
        return found.id, found.dist

    def learn(self, rows: Rows) -> None:
        for data in rows.data():
            number, distance = _HEAD.unpack_from(data)
            name, image, text = msgspec.msgpack.decode(memoryview(data)[_HEAD.size :])
            members = self._found.get(number)
            if members is None:
                members = self._found[number] = _Members(self.config["members"])
            members.add((distance, name, image, text))
        self._facts = {"clusters": len(self.centroids), "empty": len(self.centroids) - len(self._found)}

    def summary(self) -> Iterator[Record]:
        """One record a cluster that has members: largest first, then by number."""
        order = sorted(self._found, key=lambda number: (-len(self._found[number]), number))
        top = max(self.config["top"], 2)  # the margin needs the second
        numbers, scores = naming.best(naming.directions(self.centroids.rows)[order], self._features, top)
        total = sum(map(len, self._found.values()))
        for cluster, chosen, score in zip(order, numbers, scores, strict=True):
            members = self._found[cluster]
            names = [[self.concepts.names[n], round(float(s), 6)] for n, s in zip(chosen, score, strict=True)]
            yield Record(
                {
                    "id": str(cluster),
                    "cluster": cluster,
                    "size": len(members),
                    "share": round(len(members) / total, 6),
                    "mean_dist": round(members.mean_distance, 6),
                    "names": names[: self.config["top"]],
                    "margin": round(names[0][1] - names[1][1], 6),
                    "typical": members.typical,
                    "odd": members.odd,
                    "via": {"cluster": self.centroids.via, "names": self.via, "margin": self.via},
                }
            )

    @property
    def facts(self) -> dict[str, Any]:
        return self._facts

    @property
    def results(self) -> list[str]:
        """How many clusters of the file are not described, since no record is in them."""
        empty = self._facts.get("empty")
        return [f"of {len(self.centroids):,} clusters {empty:,} have no record here"] if empty else []


class _Members:
    """Of one cluster, by distance and then by id: all distances, the first `most` members and the last."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._distances = array("d")
        self._nearest: list[Member] = []
        self._farthest: list[Member] = []

    def __len__(self) -> int:
        return len(self._distances)

    def add(self, member: Member) -> None:
        self._distances.append(member[0])
        insort(self._nearest, member)
        del self._nearest[self._most :]
        insort(self._farthest, member)
        del self._farthest[: -self._most]

    @property
    def mean_distance(self) -> float:
        return math.fsum(self._distances) / len(self)  # fsum: the same in any order

    @property
    def typical(self) -> list[dict[str, Any]]:
        """The nearest, nearest first."""
        return [_reference(member) for member in self._nearest]

    @property
    def odd(self) -> list[dict[str, Any]]:
        """The farthest, farthest first; none that is typical."""
        return [_reference(member) for member in self._farthest[::-1][: max(0, len(self) - self._most)]]


def _shown(record: Record, field: str) -> str:
    """What a person opens or reads of a record; not the bytes of an image that is in the record itself."""
    value = record.get(field)
    return value if isinstance(value, str) and not value.startswith("data:") else ""


def _reference(member: Member) -> dict[str, Any]:
    distance, name, image, text = member
    said = {name: value for name, value in (("id", name), ("image", image), ("text", text)) if value}
    return said | {"dist": round(distance, 6)}
