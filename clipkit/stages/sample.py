"""A random part of the records, by hash of their ids."""

from __future__ import annotations

import math
import struct
import sys
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

from clipkit.errors import RecordError
from clipkit.stages.strata import Strata
from clipkit.stream.fieldnames import missing_field
from clipkit.stream.hashing import name_of, share, share_of, ticket
from clipkit.stream.record import Record
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Drop, Outcome, Row, Stage
from clipkit.stream.whole import WholeStage

if TYPE_CHECKING:
    import numpy as np

_ROW = struct.Struct("<dQQ")  # priority, what decides among equal ones, the stratum
_NOT_TAKEN = Drop("sample", "not-sampled")


class Sample(Stage):
    """Keeps each record with a probability: those whose share is below it.

    config: fraction, seed. What a smaller fraction keeps, a larger one of the same seed keeps too.
    """

    verb: ClassVar[str] = "sample"
    inline: ClassVar[bool] = True

    def process(self, items: list[Any]) -> list[Outcome]:
        fraction, seed = self.config["fraction"], self.config["seed"]
        return [record if share(name_of(record), seed, "sample") < fraction else _NOT_TAKEN for record in items]


class SampleExact(WholeStage):
    """Keeps an exact number of records: those that come first by share. Holds some 60 bytes a record while it decides.

    config: seed; one of count, fraction (of all records, rounded) and per (records of each stratum); stratify: None or
    the field whose values are the strata, each of which gets its proportion; weight: None or the field that says how
    likely a record is drawn.

    Weighted drawing is without replacement, by the key log(1 - share) / weight (Efraimidis & Spirakis, 2006), so equal
    weights choose as none do. Strata get their seats by Webster's method (a record of rank r of n stands at
    (r + 1/2) / n of its stratum, and the first over all strata are taken): within one record of the exact proportion in
    all but contrived cases, and a larger sample always contains a smaller one, which largest remainders cannot promise
    (Balinski & Young, 1982).
    """

    verb: ClassVar[str] = "sample"
    inline: ClassVar[bool] = True
    defaults: ClassVar[dict[str, Any]] = {
        "count": None,
        "fraction": None,
        "per": None,
        "stratify": None,
        "weight": None,
        "seed": 0,
    }

    def setup(self) -> None:
        field = self.config["stratify"]
        self._strata = Strata(field, "stratum") if field else None
        self._notices: list[str] = []

    @property
    def notices(self) -> list[str]:
        return self._notices

    def process(self, items: list[Any]) -> list[Outcome]:
        return [Row(self._row(record)) for record in items]

    def _row(self, record: Record) -> bytes:
        if self._strata:
            self._strata.look(record)
        drawn = ticket(name_of(record), self.config["seed"], "sample")
        priority = share_of(drawn)
        if self.config["weight"]:
            weight = _weight(record, self.config["weight"])
            priority = min(-math.log1p(-priority) / weight, sys.float_info.max) if weight else math.inf
        stratum = self._strata.of(record) if self._strata else 0
        return _ROW.pack(priority, int.from_bytes(drawn[8:], "big"), stratum)

    def learn(self, rows: Rows) -> None:
        if self._strata:
            self._notices += self._strata.notices()
        if not len(rows):
            return
        import numpy as np

        table = np.memmap(rows.file, [("priority", "<f8"), ("tie", "<u8"), ("stratum", "<u8")], "r", shape=len(rows))
        self._taken = self._choose(table)
        wanted, taken = self.config["count"] or 0, int(self._taken.sum())
        if taken < wanted:
            able = " with a weight above 0" if self.config["weight"] else ""
            self._notices.append(f"{taken:,} instead of {wanted:,}: there are no more{able}")

    def _choose(self, table: np.ndarray) -> np.ndarray:
        """Which rows are taken, bool [n]."""
        import numpy as np

        order = np.lexsort((table["tie"], table["priority"], table["stratum"]))
        strata = table["stratum"][order]
        starts = np.flatnonzero(np.concatenate(([True], strata[1:] != strata[:-1])))
        sizes = np.diff(starts, append=len(table))
        rank = np.arange(len(table)) - np.repeat(starts, sizes)
        if self.config["per"] is not None:
            first = order[rank < self.config["per"]]
        else:
            place = (rank + 0.5) / np.repeat(sizes, sizes)
            place[np.isinf(table["priority"][order])] = np.inf  # a seat that it cannot take goes to another
            by_place = order[np.lexsort((table["tie"][order], table["priority"][order], place))]
            first = by_place[: self._total(len(table))]
        taken = np.zeros(len(table), bool)
        taken[first] = True
        taken &= np.isfinite(table["priority"])
        return taken

    def _total(self, records: int) -> int:
        if self.config["count"] is not None:
            return int(self.config["count"])
        return math.floor(Fraction(str(self.config["fraction"])) * records + Fraction(1, 2))

    def decide(self, record: Record, row: bytes, number: int) -> Outcome:
        return record if self._taken[number] else _NOT_TAKEN


def _weight(record: Record, name: str) -> float:
    value = record.lookup(name)
    if value is None:
        raise missing_field(name, record)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise RecordError("bad-weight", f"{name}: a weight is a number from 0, not {value!r}")
    return float(value)
