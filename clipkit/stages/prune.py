"""A part of a set, chosen by looking at all of it."""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, ClassVar, Final

import numpy as np

from clipkit.errors import RecordError, UsageError
from clipkit.features import kmeans
from clipkit.features.centroids import Centroids
from clipkit.features.rows import FeatureRows
from clipkit.methods import PRUNERS
from clipkit.methods.pruners.base import Pool, Pruner, part
from clipkit.stages.reference import Reference
from clipkit.stages.vectors import TICKET, VectorStage
from clipkit.stream.fieldnames import Sought
from clipkit.stream.hashing import name_of, ticket
from clipkit.stream.record import Record
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Drop, Outcome, Row, Stage, policy
from clipkit.stream.table import Column
from clipkit.stream.whole import WholeStage

_DIGITS: Final = 6  # of a distance, as records have it, so that clusters made here and there choose the same
_SHOWN: Final = 10  # clusters of the table that is shown before cutting
_SCORE: Final = ("score", "<f8")
_WRITES: Final = "clipkit cluster --centroids FILE writes it"
_UNREAD: Final = (
    "no image is opened, so those that cannot be read count as well; for a control of the very size of another "
    "method, give --features STORE and no SOURCE to both"
)
_ROW: Final = struct.Struct("<Qdqd")  # ticket, score, cluster, distance


def _column(name: str) -> Column:
    def show(record: Record) -> str:
        value = record.get(name)
        return "" if value is None else _shown(value, name)

    return Column(name, 10, show, right=True, optional=name not in ("cluster", "size", "keep", "share"))


# What a terminal shows of a plan.
_SAID: Final = ("cluster", "size", "keep", "share", "d_intra", "d_inter", "complexity", "p", "better", "hits")
PLAN_COLUMNS = tuple(_column(name) for name in _SAID)


class _Pruning(WholeStage):
    """What both ways share: from a pool to a decision.

    config: method, a name of PRUNERS; options, what it takes (`Pruner`); one of keep (records) and keep_fraction (of
    all records, rounded), or neither where the method has a rule of its own; seed; plan: the allocation is written, a
    record a cluster, and nothing is cut. runtime: on_error and workers, for a reference that is encoded.
    """

    defaults: ClassVar[dict[str, Any]] = {
        "options": {},
        "keep": None,
        "keep_fraction": None,
        "seed": 0,
        "plan": False,
    }

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        super().__init__(config, runtime)
        keep, fraction = self.config["keep"], self.config["keep_fraction"]
        if keep is not None and fraction is not None:
            raise UsageError("--keep or --keep-fraction, not both")
        if fraction is not None:
            part("keep_fraction", fraction)
        sized = keep is not None or fraction is not None
        self.pruner: Pruner = PRUNERS.get(self.config["method"])({**self.config["options"], "sized": sized})
        self.steps = () if self.summarises else tuple(self.pruner.reasons)
        best_by = self.config["options"].get("best_by")
        self._sought, self._lock = Sought([best_by] if best_by else []), threading.Lock()
        self._numbers: set[bool] = set()  # whether --best-by was a number, in those that had it
        self._notices: list[str] = []
        self._facts: dict[str, Any] = {}

    @property
    def summarises(self) -> bool:
        return bool(self.config["plan"])

    @property
    def notices(self) -> list[str]:
        return [*super().notices, *self._notices]

    @property
    def facts(self) -> dict[str, Any]:
        return self._facts

    def pool(self, rows: Rows) -> Pool:
        """What the rows say of all records."""
        raise NotImplementedError

    def score(self, record: Record) -> float:
        """The number of --best-by; NaN where a record has none. Raises RecordError."""
        name = self.config["options"].get("best_by")
        if not name:
            return math.nan
        with self._lock:
            self._sought.look(record)
        value = record.lookup(name)
        if value is None:
            return math.nan
        score = _double(value)
        self._numbers.add(not math.isnan(score))
        if math.isnan(score):
            raise RecordError("bad-field", f"field {name!r} is no number, or too large a one", "see --best-by")
        return score

    def learn(self, rows: Rows) -> None:
        self._pool = pool = self.pool(rows)
        if self.config["options"].get("best_by") and np.isnan(pool.score).all():
            self._sought.check()
            if len(pool) or self._numbers == {False}:
                field = self.config["options"]["best_by"]
                raise UsageError(f"no record has a number in {field}", "--best-by FIELD, such as scores.clip")
        size = self._size(pool)
        self._quota = self.pruner.allocate(pool, size) if len(pool) else np.zeros(pool.k, np.int64)
        self._tell(size)
        if not self.summarises:
            self._kept = self.pruner.choose(pool, self._quota)
            self._why = self.pruner.why(pool, self._quota)

    def _size(self, pool: Pool) -> int | None:
        """How many stay; None: what the method's own rule says."""
        if not self.pruner.sized:
            return None
        wanted = self.config["keep"]
        if wanted is None:
            wanted = math.floor(Fraction(str(self.config["keep_fraction"])) * len(pool) + Fraction(1, 2))
        most = self.pruner.most(pool)
        if most < wanted and len(pool):
            able = "there are no more" if most == len(pool) else f"{self.pruner.name} can choose among no more"
            self._notices.append(f"{most:,} instead of {wanted:,}: {able}")
        return int(min(wanted, most))

    def _tell(self, size: int | None) -> None:
        pool, made = self._pool, self._pool.centroids
        kept = int(self._quota.sum())
        self._facts |= {"method": self.pruner.name, "records": len(pool), "keep": kept, "k": pool.k}
        self._facts |= {"seed": self.config["seed"]}
        if made is not None:
            self._facts |= {"encoder": made.model, "by": made.by, "centroids": made.digest}
        if len(pool):
            self._facts |= self.pruner.facts(pool, size)
        unscored = int(np.isnan(pool.score).sum())
        if unscored and self.config["options"].get("best_by"):
            self._notices.append(f"records without {self.config['options']['best_by']}, which go: {unscored:,}")

    def decide(self, record: Record, row: bytes, number: int) -> Outcome:
        if self._kept[number]:
            return record
        reason = next(reason for reason in self._why if reason.of[number])
        return Drop(self.verb, reason.name, _number(reason.value[number]), _number(reason.limit[number]))

    def summary(self) -> Iterator[Record]:
        """A record a cluster: id, cluster, size, keep, share, and what the method's `columns` say."""
        columns = {name: column.tolist() for name, column in self._columns().items()}
        for cluster in range(self._pool.k):
            said = {name: _number(column[cluster]) for name, column in columns.items()}
            yield Record({"id": str(cluster), "cluster": cluster, **said})

    def _columns(self) -> dict[str, np.ndarray]:
        sizes = self._pool.sizes
        share = np.divide(self._quota, sizes, out=np.full(len(sizes), np.nan), where=sizes > 0)
        found = self.pruner.columns(self._pool) if len(self._pool) else {}
        return {"size": sizes, "keep": self._quota, "share": share, **found}

    @property
    def results(self) -> list[str]:
        return [self._totals] if self.summarises else []

    @property
    def _totals(self) -> str:
        pool, kept = self._pool, int(self._quota.sum())
        clusters = f" in {pool.k:,} cluster{'s' * (pool.k > 1)} of {pool.centroids.model}" if pool.centroids else ""
        share = f" ({kept / len(pool):.1%})" if len(pool) else ""
        return f"{self.pruner.name}: {kept:,} of {len(pool):,} records stay{share}{clusters}"

    @property
    def announcement(self) -> list[str]:
        """The allocation in short: the totals, and what becomes of the largest clusters."""
        pool, lines = self._pool, [self._totals]
        if pool.k < 2:
            return lines
        columns = self._columns()
        largest = np.argsort(-pool.sizes, kind="stable")[:_SHOWN]
        lines.append("".join(f"{name:>11}" for name in ("cluster", *columns)))
        for cluster in largest.tolist():
            cells = [_shown(column[cluster].item(), name) for name, column in columns.items()]
            lines.append("".join(f"{cell:>11}" for cell in (f"{cluster:,}", *cells)))
        if pool.k > _SHOWN:
            rest = pool.k - len(largest)
            sizes = len(pool) - int(pool.sizes[largest].sum())
            stay = int(self._quota.sum() - self._quota[largest].sum())
            lines.append(f"{rest:,} more clusters: {stay:,} of {sizes:,} stay; --plan shows them all")
        return lines


class Prune(_Pruning, VectorStage):
    """Keeps a part of the records, by clusters of their features that are made here.

    config: as `_Pruning` and `VectorStage`; k: clusters (None: the method's own number). A reference of images or
    captions is encoded as the records are.
    """

    verb: ClassVar[str] = "prune"
    fields: ClassVar[tuple[tuple[str, str], ...]] = (_SCORE,)
    defaults: ClassVar[dict[str, Any]] = {**VectorStage.defaults, **_Pruning.defaults, "k": None}

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        super().__init__(config, runtime)
        self._clustered = False  # whether records say what cluster they are in

    @property
    def notices(self) -> list[str]:
        said = "the records' own field `cluster` is not looked at: these are new clusters; --centroids FILE takes those"
        return [*super().notices, *([said] if self._clustered else [])]

    def setup(self) -> None:
        super().setup()
        model, by = str(self.encoder.identity), self.config["by"]
        self._reference = Reference(self.config["options"].get("reference") or [], model, by)
        if self._reference.sources and self.config["features"]:
            raise self._reference.needs_store("--features")

    def fingerprint(self) -> dict[str, Any]:
        return super().fingerprint() | {"best_by": self.config["options"].get("best_by")}

    def head(self, record: Record) -> bytes:
        said = record.get("cluster")
        self._clustered = self._clustered or (isinstance(said, dict) and said.keys() >= {"id", "dist"})
        return struct.pack("<d", self.score(record))

    def pool(self, rows: Rows) -> Pool:
        heads, vectors = self.layout.heads([rows]), self.layout.vectors([rows])
        drawn, score = np.ascontiguousarray(heads["ticket"]), np.ascontiguousarray(heads["score"])
        if not len(heads):
            return Pool(np.empty(0, np.int32), np.empty(0), drawn, score, 0)
        k = min(self.config["k"] or self.pruner.default_k(len(heads)), len(heads))
        order = np.argsort(drawn, kind="stable")
        model, by = str(self.encoder.identity), self.config["by"]
        made = kmeans.cluster(vectors, order, k, model=model, by=by)
        distance, hits = np.round(made.distance, _DIGITS), self._hits(made.centroids)
        return Pool(made.nearest, distance, drawn, score, len(made.centroids), hits, made.centroids)

    def _hits(self, centroids: Centroids) -> np.ndarray | None:
        reference = self._reference
        if not self.config["options"].get("reference"):
            return None
        strict = policy(self, self.runtime.get("on_error")) == "fail"
        features = (
            features for path in reference.sources for features in reference.encoded(path, self, self.layout, strict)
        )
        hits = reference.hits(centroids, features)
        self._notices += reference.notices
        return hits


class PruneRecords(_Pruning):
    """Keeps a part of the records by the clusters that they say they are in, or at random: no image is opened.

    config: as `_Pruning`; centroids: the file of the clusters (None where the method needs none); unread: the records
    are as they come, so an image that no other method could read is among them.
    """

    verb: ClassVar[str] = "prune"
    inline: ClassVar[bool] = True
    defaults: ClassVar[dict[str, Any]] = {**_Pruning.defaults, "centroids": None, "unread": False}

    def setup(self) -> None:
        path, self._images = self.config["centroids"], False
        self._centroids = Centroids.load(path) if path else None
        self.layout = FeatureRows(np.dtype([TICKET, _SCORE, ("cluster", "<i8"), ("distance", "<f8")]), 0)
        if self._centroids is not None:
            paths = self.config["options"].get("reference") or []
            self._reference = Reference(paths, self._centroids.model, self._centroids.by)
            if self._reference.sources:
                raise self._reference.needs_store("--centroids")

    @property
    def notices(self) -> list[str]:
        return [*super().notices, *([_UNREAD] if self.config["unread"] and self._images else [])]

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._row(record) for record in items]

    def _row(self, record: Record) -> Outcome:
        drawn = int.from_bytes(ticket(name_of(record), self.config["seed"], self.verb)[:8], "big")
        try:
            cluster, distance = self._place(record)
            self._images = self._images or "image" in record
            return Row(_ROW.pack(drawn, self.score(record), cluster, distance))
        except RecordError as error:
            return error

    def _place(self, record: Record) -> tuple[int, float]:
        """The cluster of a record, and its distance. Raises RecordError."""
        made = self._centroids
        if made is None:
            return 0, 0.0
        said, via = record.get("cluster"), record.get("via")
        if said is None:
            raise RecordError("missing-field", "no field 'cluster'", _WRITES)
        number = said.get("id") if isinstance(said, dict) else None
        distance = _double(said.get("dist")) if isinstance(said, dict) else math.nan
        if not isinstance(number, int) or isinstance(number, bool) or math.isnan(distance):
            raise RecordError("bad-field", "field 'cluster' is not {id, dist}", _WRITES)
        maker = via.get("cluster") if isinstance(via, dict) else None
        if maker != made.via:
            whose = f"by {maker}" if maker else "nobody knows by whom"
            message = f"its cluster was found {whose}; --centroids {self.config['centroids']} is {made.via}"
            raise RecordError("other-clusters", message, "name the file that clipkit cluster saved with these records")
        if not 0 <= number < len(made) or distance < -1e-6:
            message = f"there is no cluster {number!r:.40} at distance {distance} among {len(made):,}"
            raise RecordError("bad-field", message)
        return number, distance

    def pool(self, rows: Rows) -> Pool:
        heads, made = self.layout.heads([rows]), self._centroids
        drawn, score, distance = (np.ascontiguousarray(heads[name]) for name in ("ticket", "score", "distance"))
        cluster = heads["cluster"].astype(np.int32)
        if made is None:
            return Pool(cluster, distance, drawn, score, 1)
        hits = self._reference.hits(made, iter(())) if self.config["options"].get("reference") else None
        return Pool(cluster, np.round(distance, _DIGITS), drawn, score, len(made), hits, made)


def prune(config: dict[str, Any], runtime: dict[str, Any]) -> Stage:
    """The stage for what was asked: `Prune`, or `PruneRecords` where no features are needed.

    config: that of either; `given`, flags that were said about clusters that are made here; `alone`: the records are a
    store's. A method that looks at no clusters takes no notice of any: a control is the same command with another
    method. Raises UsageError for what does not go together.
    """
    found: type[Pruner] = PRUNERS.get(config["method"])
    said = {name: value for name, value in config.items() if name not in ("given", "alone", "centroids")}
    if found.needs_clusters and not config["centroids"]:
        return Prune(said, runtime)
    if found.needs_clusters and config["given"]:
        hint = "leave one of them out"
        raise UsageError(f"{config['given'][0]}: with --centroids the records say what cluster they are in", hint)
    names = (*_Pruning.defaults, "method")
    said = {name: config[name] for name in names}
    if found.needs_clusters:
        return PruneRecords({**said, "centroids": config["centroids"]}, runtime)
    unread = config["keep_fraction"] is not None and config["by"] == "image" and not config["alone"]
    return PruneRecords({**said, "unread": unread}, runtime)


def _double(value: Any) -> float:
    """A number of a record as f64; NaN for what is none, or a whole number beyond all doubles."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _number(value: Any) -> Any:
    """A number as JSON has it: 6 decimals, null for NaN."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)
    return value


def _shown(value: float, name: str) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if math.isnan(value):
        return ""
    return f"{value:.1%}" if name == "share" else f"{value:.4f}"
