"""Accuracy of classes against how often captions or images have them (Udandarao et al., 2024)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, ClassVar, Final

import numpy as np

from clipkit.errors import ClipkitError, RecordError
from clipkit.methods.concepts.counts import read_counts
from clipkit.methods.concepts.curve import Fit, Interval, fit
from clipkit.methods.concepts.synonyms import listed
from clipkit.stages.concepts import missing_parts
from clipkit.stream.fieldnames import missing_field
from clipkit.stream.record import Record, decode_json, encode_json
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Outcome, Row
from clipkit.stream.table import Column
from clipkit.stream.whole import WholeStage
from clipkit.text.concepts import fold

_RIGHT = struct.Struct("<dd")  # answers that were right, and all; then come the names of the classes, as JSON
_NAMED: Final = ("class", "concept", "label", "id")  # where a row about a class has its name
_DIGITS: Final = 6
_BAR: Final = 40  # characters of a bar that says 1

FIT_COLUMNS = (
    Column("classes", 7, lambda fit: f"{fit['classes']:,}", right=True),
    Column("slope", 9, lambda fit: _said(fit["slope"]), right=True),
    Column("from", 9, lambda fit: _said((fit["slope_ci"] or [None, None])[0]), right=True),
    Column("to", 9, lambda fit: _said((fit["slope_ci"] or [None, None])[1]), right=True),
    Column("intercept", 9, lambda fit: _said(fit["intercept"]), right=True),
    Column("r", 7, lambda fit: _said(fit["r"]), right=True),
    Column("rho", 7, lambda fit: _said(fit["rho"]), right=True),
)
CLASS_COLUMNS = (
    Column("class", 36, lambda row: row.id or ""),
    Column("count", 12, lambda row: f"{row['count']:,}", right=True),
    Column("answers", 8, lambda row: f"{row['answers']:,}", right=True),
    Column("accuracy", 8, lambda row: _said(row["accuracy"]), right=True),
    Column("expected", 8, lambda row: _said(row["expected"]), right=True),
    Column("residual", 8, lambda row: _said(row["residual"]), right=True),
)


class Curve(WholeStage):
    """Fits the accuracy of classes to log10 of their counts, and writes the fit, or with `per_class` a record a class.

    Of each record either the answer is judged: right where `pred` is the `label`, or one of several; or, if it has
    `accuracy`, it is about a class as a whole: its `class`, `concept`, `label` or `id`, and `n` answers (1 if absent).
    config: counts (files that `concepts count` wrote, added up); by: text, image or both, None for the last of these
    that was counted; per_class; seed of the bootstrap.
    """

    verb: ClassVar[str] = "concepts curve"
    inline: ClassVar[bool] = True
    defaults: ClassVar[dict[str, Any]] = {"by": None, "per_class": False, "seed": 0}

    def setup(self) -> None:
        counts = read_counts(self.config["counts"])
        self._by = self.config["by"] or counts.sides[-1]
        self._counts, self._missing = counts.by(self._by), counts.missing
        self._folded = {fold(name): count for name, count in reversed(self._counts.items())}
        self._classes: list[dict[str, Any]] = []
        self._uncounted: list[str] = []
        self._fit = Fit(0)

    @property
    def summarises(self) -> bool:
        return True

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._row(record) for record in items]

    def _row(self, record: Record) -> Outcome:
        try:
            names, right, answers = _of_class(record) if record.get("accuracy") is not None else _judged(record)
        except RecordError as error:
            return error
        return Row(_RIGHT.pack(right, answers) + encode_json(names))

    def learn(self, rows: Rows) -> None:
        totals: dict[str, list[float]] = {}
        for row in rows.data():
            right, answers = _RIGHT.unpack_from(row)
            for name in decode_json(row[_RIGHT.size :]):
                total = totals.setdefault(name, [0.0, 0.0])
                total[0] += right
                total[1] += answers
        for name, (right, answers) in sorted(totals.items()):
            count = self._counts.get(name, self._folded.get(fold(name)))
            if count is None:
                self._uncounted.append(name)
            else:
                found = {"id": name, "count": count, "answers": _whole(answers), "accuracy": right / answers}
                self._classes.append(found)
        if self._uncounted and not self._classes:
            message = f"no class of the results was counted: {listed(self._uncounted)}"
            raise ClipkitError(message, f"the counts are of {listed(list(self._counts))}: count these classes")
        seen = [found for found in self._classes if found["count"]]
        counts, accuracies = (np.array([found[name] for found in seen], float) for name in ("count", "accuracy"))
        self._fit = fit(counts, accuracies, seed=self.config["seed"])

    def summary(self) -> Iterator[Record]:
        if not self.config["per_class"]:
            yield Record(self.facts)
            return
        for found in sorted(self._classes, key=lambda found: (found["count"], found["id"])):
            expected = self._expected(found["count"])
            residual = None if expected is None else found["accuracy"] - expected
            rounded = {"accuracy": found["accuracy"], "expected": expected, "residual": residual}
            yield Record(found | {name: _rounded(value) for name, value in rounded.items()})

    def _expected(self, count: int) -> float | None:
        """What the line says of a count."""
        if self._fit.slope is None or self._fit.intercept is None or not count:
            return None
        return self._fit.intercept + self._fit.slope * float(np.log10(count))

    @property
    def facts(self) -> dict[str, Any]:
        """The fit."""
        line = self._fit
        return {
            "classes": line.n,
            "by": self._by,
            "slope": _rounded(line.slope),
            "slope_ci": _ends(line.slope_ci),
            "intercept": _rounded(line.intercept),
            "intercept_ci": _ends(line.intercept_ci),
            "r": _rounded(line.r),
            "rho": _rounded(line.rho),
            "excluded": {"never_seen": len(self._never_seen()), "not_counted": len(self._uncounted)},
            "decades": list(self._decades()),
        }

    def _never_seen(self) -> list[str]:
        return [found["id"] for found in self._classes if not found["count"]]

    def _decades(self) -> Iterator[dict[str, Any]]:
        """Mean accuracy of the classes with counts of so many digits; first of those never seen."""
        binned: dict[int, list[float]] = {}
        for found in self._classes:
            binned.setdefault(len(str(found["count"])) if found["count"] else 0, []).append(found["accuracy"])
        for digits, accuracies in sorted(binned.items()):
            least, most = (10 ** (digits - 1), 10**digits - 1) if digits else (0, 0)
            mean = _rounded(float(np.mean(accuracies)))
            yield {"from": least, "to": most, "classes": len(accuracies), "accuracy": mean}

    @property
    def results(self) -> list[str]:
        """The decades as a small table."""
        lines = []
        for decade in self._decades():
            counts = f"{decade['from']:,} to {decade['to']:,}" if decade["to"] else "never seen"
            bar = "#" * round(_BAR * decade["accuracy"])
            lines.append(f"{counts:>30}  {decade['classes']:>7,} classes  {decade['accuracy']:.3f} {bar}".rstrip())
        return lines

    @property
    def notices(self) -> list[str]:
        said = missing_parts(self._missing)
        if never := self._never_seen():
            said.append(f"{len(never):,} never seen, which no logarithm has a place for, left out: {listed(never)}")
        if self._uncounted:
            said.append(f"{len(self._uncounted):,} not counted, left out: {listed(self._uncounted)}")
        if self._fit.slope is None:
            said.append("no line: it takes two classes whose counts differ, and are above 0")
        if self._classes and not any(found["accuracy"] for found in self._classes):
            said.append("no answer was right: are labels and predictions the same names?")
        return said


def _judged(record: Record) -> tuple[list[str], float, float]:
    """The classes of a record that was classified, whether it was right (1 or 0), and 1."""
    label, pred = record.get("label"), record.get("pred")
    for name, value in (("label", label), ("pred", pred)):
        if value is None:
            raise missing_field(name, record)
    names = [label] if isinstance(label, str) else label
    said = pred.get("label") if isinstance(pred, dict) else pred
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise RecordError("bad-field", "field 'label' is not a class name or a list of them")
    if not isinstance(said, str):
        raise RecordError("bad-field", "field 'pred' names no label", 'it is as zeroshot writes it: {"label": ...}')
    return names, float(said in names), 1.0


def _of_class(record: Record) -> tuple[list[str], float, float]:
    """The class that a record is about, the answers that were right (a fraction's too), and all."""
    name = next((record[key] for key in _NAMED if record.get(key) is not None), None)
    if not isinstance(name, str) or not name:
        raise RecordError("missing-field", "it has an accuracy and no class", f"name it in one of {', '.join(_NAMED)}")
    accuracy, answers = record["accuracy"], 1 if record.get("n") is None else record["n"]
    if not _is_number(accuracy) or not 0 <= accuracy <= 1:
        raise RecordError("bad-field", f"field 'accuracy' is no share from 0 to 1: {accuracy!r:.60}")
    if not _is_number(answers) or not 0 < answers <= 2**53:
        raise RecordError("bad-field", f"field 'n' is no number of answers: {answers!r:.60}")
    return [name], float(accuracy * answers), float(answers)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: float) -> float:
    return int(value) if value.is_integer() else value


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


def _ends(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else [_rounded(end) for end in interval]


def _said(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
