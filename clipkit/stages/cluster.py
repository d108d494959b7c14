"""Clusters of images or captions: made of a whole set, or those of an earlier run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from clipkit.errors import ClipkitError, RecordError
from clipkit.features import kmeans
from clipkit.features.centroids import Centroids
from clipkit.stages.vectors import FeatureItem, FeatureStage, VectorStage
from clipkit.stream.record import Record
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Outcome
from clipkit.stream.table import Column

FIELD = "cluster"
_DECIMALS = 6
_FORGET = f"clipkit set --drop {FIELD} forgets it, clipkit set --rename {FIELD}_old={FIELD} moves it"


def _shown(record: Record, name: str) -> str:
    value = record.lookup(f"{FIELD}.{name}")
    return "" if value is None else f"{value:.6f}" if name == "dist" else str(value)


COLUMNS = (
    Column("cluster", 8, lambda record: _shown(record, "id"), right=True),
    Column("dist", 8, lambda record: _shown(record, "dist"), right=True),
    Column("id", 40, lambda record: record.id or ""),
    Column("text", 40, lambda record: str(record.get("text") or ""), optional=True),
)


def place(record: Record, number: int, distance: float, via: str) -> Record:
    """Write into a record which cluster it belongs to."""
    record.add(FIELD, {"id": int(number), "dist": round(float(distance), _DECIMALS)}, via)
    return record


def check_free(record: Record, ours: str | None, wording: str) -> None:
    """Raise RecordError (`cluster-exists`) where a record has a cluster of another maker than ours.

    wording: what this run makes, for the message.
    """
    makers = record.get("via")
    if not isinstance(makers, dict | None):
        raise RecordError("bad-field", "field 'via' is not an object")
    if record.get(FIELD) is None:
        return
    theirs = (makers or {}).get(FIELD)
    if theirs is None or theirs != ours:
        said = f"made by {theirs}" if theirs else "and `via` doesn't say who made it"
        raise RecordError("cluster-exists", f"{FIELD!r} is there already, {said}; {wording}", _FORGET)


class Cluster(VectorStage):
    """Adds `cluster` to each record: k-means over the features of all of them.

    config: as `VectorStage` takes it; k (None: `kmeans.auto_k`), spherical, init and passes as `kmeans.cluster` has
    them, and seed. After the run `centroids` holds what was made.
    """

    verb: ClassVar[str] = "cluster"
    adds: ClassVar[tuple[str, ...]] = (FIELD,)
    defaults: ClassVar[dict[str, Any]] = {
        **VectorStage.defaults,
        "k": None,
        "spherical": True,
        "init": "k-means++",
        "passes": None,
    }

    centroids: Centroids | None = None

    def setup(self) -> None:
        super().setup()
        self._said: list[str] = []
        self._facts: dict[str, Any] = {}
        self._results: list[str] = []

    @property
    def notices(self) -> list[str]:
        return [*super().notices, *self._said]

    @property
    def facts(self) -> dict[str, Any]:
        return self._facts

    @property
    def results(self) -> Sequence[str]:
        return self._results

    def head(self, record: Record) -> bytes:
        check_free(record, None, f"this run makes clusters of its own, of {self.encoder.identity}")
        return b""

    def learn(self, rows: Rows) -> None:
        vectors = self.layout.vectors([rows])
        if not len(vectors):
            return
        config = self.config
        fitted = kmeans.cluster(
            vectors,
            np.argsort(self.layout.heads([rows])["ticket"], kind="stable"),
            self._k(len(vectors)),
            model=str(self.encoder.identity),
            by=config["by"],
            spherical=config["spherical"],
            init=config["init"],
            seed=config["seed"],
            passes=config["passes"],
        )
        self.centroids = fitted.centroids
        self._nearest, self._distance = fitted.nearest, fitted.distance
        self._tell(fitted)

    def _k(self, n: int) -> int:
        """How many clusters n vectors give."""
        asked = self.config["k"]
        if asked is None:
            k = kmeans.auto_k(n)
            self._said.append(f"--k auto: {k:,} clusters, which is sqrt(n / 2) of {n:,} records, rounded")
            return k
        if asked > n:
            self._said.append(f"--k {asked:,}: {n:,} clusters, for there are no more records")
        return min(int(asked), n)

    def _tell(self, fitted: kmeans.Fitted) -> None:
        """What a person, and a report, should hear."""
        sizes, inertia = fitted.centroids.sizes, round(fitted.inertia, _DECIMALS)
        empty, spread = int((sizes == 0).sum()), (int(sizes.min()), float(np.median(sizes)), int(sizes.max()))
        self._facts = {
            "k": len(sizes),
            "inertia": inertia,
            "sizes": dict(zip(("min", "median", "max"), spread, strict=True)),
            "empty": empty,
            "seed": self.config["seed"],
            "sample": fitted.sampled,
            "passes": fitted.passes,
            "groups": len(fitted.centroids.groups.rows) if fitted.centroids.groups else 0,
            "centroids": fitted.centroids.digest,
        }
        if empty:
            are = "clusters is" if empty == 1 else "clusters are"
            why = "more clusters than distinct features, or none is nearest to it"
            self._said.append(f"{empty:,} of {len(sizes):,} {are} empty: {why}")
        self._results = [
            f"{len(sizes):,} clusters of {spread[0]:,} to {spread[2]:,} records, {spread[1]:,g} in the middle; "
            f"inertia {inertia:.6f}"
        ]

    def decide(self, record: Record, row: bytes, number: int) -> Outcome:
        assert self.centroids is not None
        return place(record, self._nearest[number], self._distance[number], self.centroids.via)

    def save(self, path: str) -> None:
        """Write the centroids. Raises ClipkitError where no record gave any."""
        if self.centroids is None:
            raise ClipkitError(f"there was no record to make clusters of: {path} is not written")
        self.centroids.save(path)


class AssignClusters(FeatureStage):
    """Adds `cluster` to each record: the nearest of the clusters in a file.

    config: as `FeatureStage` takes it, by being what the file says where it is None; centroids: the file, as
    `Cluster.save` wrote it.
    """

    verb: ClassVar[str] = "cluster"
    adds: ClassVar[tuple[str, ...]] = (FIELD,)

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        self.centroids = Centroids.load(config["centroids"])
        super().__init__(config | {"by": config.get("by") or self.centroids.by}, runtime)

    def setup(self) -> None:
        super().setup()
        self.centroids.require(str(self.encoder.identity), self.config["by"], self.encoder.identity.dim)

    def fingerprint(self) -> dict[str, Any]:
        return super().fingerprint() | {"centroids": self.centroids.via}

    def prepare(self, record: Record) -> tuple[Record, FeatureItem]:
        check_free(record, self.centroids.via, f"this is {self.centroids.via}")
        return record, self.ready(record)

    def process(self, items: list[Any]) -> list[Outcome]:
        found = self.features_of([item for _, item in items])
        good = np.array([row for row in found if not isinstance(row, RecordError)], np.float32)
        placed = zip(*self.centroids.assign(good.reshape(-1, self.encoder.identity.dim)), strict=True)
        return [
            row if isinstance(row, RecordError) else place(record, *next(placed), self.centroids.via)
            for (record, _), row in zip(items, found, strict=True)
        ]
