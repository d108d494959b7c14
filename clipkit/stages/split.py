"""Records to train, val and test."""

from __future__ import annotations

import bisect
import itertools
import re
import struct
from fractions import Fraction
from typing import Any, ClassVar

from clipkit.errors import RecordError, UsageError
from clipkit.stages.strata import Strata
from clipkit.stream.fieldnames import missing_field
from clipkit.stream.hashing import name_of, share, share_of, ticket, value_name
from clipkit.stream.record import Record
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Emit, Outcome, Row, Stage
from clipkit.stream.whole import WholeStage

SPLITS = ("train", "val", "test")
_NUMBER = re.compile(r"[0-9./]{1,40}")  # 0.8, 1/3; an exponent could make it endless
_ROW = struct.Struct("<QdQ")  # the class, the share, what decides among equal shares


def parse_ratios(text: str) -> dict[str, str]:
    """`train=0.8,val=0.2` as {"train": "0.8", "val": "0.2"}: decimal, in the order named, adding up to 1."""
    ratios: dict[str, str] = {}
    hint = "for example: --ratios train=0.8,val=0.1,test=0.1"
    for part in text.split(","):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if name not in SPLITS or not equals:
            raise UsageError(f"--ratios takes train, val and test with a number each, not {part!r}", hint)
        if name in ratios:
            raise UsageError(f"--ratios names {name} twice", hint)
        try:
            valid = bool(_NUMBER.fullmatch(number)) and 0 <= Fraction(number) <= 1
        except (ValueError, ZeroDivisionError):
            valid = False
        if not valid:
            raise UsageError(f"--ratios: a ratio is a number from 0 to 1, not {number!r}", hint)
        ratios[name] = number
    total = sum(map(Fraction, ratios.values()))
    if total != 1:
        raise UsageError(f"--ratios add up to {float(total)!r}, not 1", hint)
    return ratios


class _Assign(Stage):
    """What both ways to split share: how a split gets into a record.

    config: ratios (of `parse_ratios`), seed, overwrite, to_outputs: emit to an output named as the split.
    """

    adds: ClassVar[tuple[str, ...]] = ("split",)
    inline: ClassVar[bool] = True
    defaults: ClassVar[dict[str, Any]] = {"seed": 0, "overwrite": False, "to_outputs": False}

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        super().__init__(config, runtime)
        self._sizes = dict.fromkeys(self.config["ratios"], 0)

    @property
    def results(self) -> list[str]:
        """What came of it, for a person."""
        return ["  " + ", ".join(f"{name} {size:,}" for name, size in self._sizes.items())]

    @property
    def facts(self) -> dict[str, dict[str, int]]:
        """For --report: records by split."""
        return {"splits": self._sizes}

    def _assign(self, record: Record, split: str, by: str) -> Outcome:
        """The record with its split. One that has another is not moved unless it is to be: test may have been used."""
        before = record.get("split")
        if before is not None and before != split and not self.config["overwrite"]:
            raise RecordError(
                "split-exists",
                f"its split is {before!r}, and would become {split!r}",
                "--overwrite replaces it",
            )
        if before != split:
            record.add("split", split, f"split/{by}@{self.config['seed']}")
        self._sizes[split] += 1
        return Emit([(split, record)]) if self.config["to_outputs"] else record


class Split(_Assign):
    """Adds `split` by hash: of the id, or of what a field says, so that what belongs together stays together.

    config: as above, and group: None or a field. The interval of [0, 1) that a share falls in decides, so a record's
    split never depends on others.
    """

    verb: ClassVar[str] = "split"
    defaults: ClassVar[dict[str, Any]] = {**_Assign.defaults, "group": None}

    def setup(self) -> None:
        ratios = {name: Fraction(ratio) for name, ratio in self.config["ratios"].items()}
        self._names: list[str] = list(ratios)
        self._ends = [float(end) for end in itertools.accumulate(ratios.values())]

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._assign(record, self._choose(record), self.config["group"] or "id") for record in items]

    def _choose(self, record: Record) -> str:
        name: str | bytes = name_of(record)
        if self.config["group"]:
            value = record.lookup(self.config["group"])
            if value is None:
                raise missing_field(self.config["group"], record)
            name = value_name(value)
        drawn = share(name, self.config["seed"], "split")
        return self._names[bisect.bisect_right(self._ends, drawn)]


class SplitStratified(_Assign, WholeStage):
    """Adds `split` with the same proportions in every class. Holds some 60 bytes a record while it decides.

    config: as above, and stratify: the field that holds the class. For each split in turn, the last named first, the
    seats up to and including class c are the ratio of the records up to c, rounded; so a class is within one record of
    its proportion (exact where that is whole), and so is the total, however small the classes are. In a class the
    records with the smallest shares go to the split named first, as they do without classes.
    """

    verb: ClassVar[str] = "split"
    defaults: ClassVar[dict[str, Any]] = {**_Assign.defaults, "stratify": "label"}

    def setup(self) -> None:
        self._strata = Strata(self.config["stratify"], "class")
        self._notices: list[str] = []

    @property
    def notices(self) -> list[str]:
        return self._notices

    def process(self, items: list[Any]) -> list[Outcome]:
        return [Row(self._row(record)) for record in items]

    def _row(self, record: Record) -> bytes:
        self._strata.look(record)
        drawn = ticket(name_of(record), self.config["seed"], "split")
        return _ROW.pack(self._strata.of(record), share_of(drawn), int.from_bytes(drawn[8:], "big"))

    def learn(self, rows: Rows) -> None:
        self._notices += self._strata.notices()
        if not len(rows):
            return
        import numpy as np

        table = np.memmap(rows.file, [("stratum", "<u8"), ("share", "<f8"), ("tie", "<u8")], "r", shape=len(rows))
        order = np.lexsort((table["tie"], table["share"], table["stratum"]))
        sizes = np.unique(table["stratum"], return_counts=True)[1]
        seats = seats_of(sizes.tolist(), [Fraction(ratio) for ratio in self.config["ratios"].values()])
        self._split = np.empty(len(rows), np.uint8)
        self._split[order] = np.repeat(np.tile(np.arange(len(seats[0])), len(seats)), np.ravel(seats))

    def decide(self, record: Record, row: bytes, number: int) -> Outcome:
        names = list(self.config["ratios"])
        return self._assign(record, names[self._split[number]], self.config["stratify"])


def seats_of(sizes: list[int], ratios: list[Fraction]) -> list[list[int]]:
    """How many records of each class go to each split, [classes][splits]; rows add up to `sizes`, ratios to 1."""
    seats = [[0] * len(ratios) for _ in sizes]
    left = list(sizes)
    for split in reversed(range(len(ratios))):
        among = sum(ratios[: split + 1])
        ratio = ratios[split] / among if among else Fraction(1)
        records = given = 0
        for group, size in enumerate(left):
            records += size
            seats[group][split] = (2 * records * ratio.numerator + ratio.denominator) // (2 * ratio.denominator) - given
            given += seats[group][split]
            left[group] -= seats[group][split]
    return seats
