"""The verb filter: keeps the records for which all conditions hold, and the best part of them by a field."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from clipkit.errors import ClipkitError, RecordError
from clipkit.methods.filters.presets import architecture
from clipkit.stream.fieldnames import Sought
from clipkit.stream.record import Record
from clipkit.stream.rows import Columns
from clipkit.stream.selecting import HELD, Selecting
from clipkit.stream.stage import Drop, Outcome, Row
from clipkit.stream.where import Clause, Program, clauses, named
from clipkit.stream.whole import WholeStage

if TYPE_CHECKING:
    import numpy as np

    from clipkit.stream.spool import Rows

DEFAULTS: dict[str, Any] = {"where": [], "invert": False, "top": None, "bound": None, "entities": None}


class Filter(Selecting):
    """Keeps records as they came, or drops them with the condition that does not hold.

    config: where [conditions]; invert; top None or {by, fraction or k, strict}; bound None or {field, model, preset}:
    whose scores these have to be; entities None or {wordnet, synsets}: files for entity(); limits: what `learn_limits`
    gave, where `where` has a q() or there is a `top`.
    Raises ClipkitError for a score of another model than `bound` says.
    """

    verb: ClassVar[str] = "filter"
    defaults: ClassVar[dict[str, Any]] = {**DEFAULTS, "limits": None}

    def setup(self) -> None:
        found = read_clauses(self.config["where"])
        limits = self.config["limits"] or {"quantiles": [], "top": None}
        known = {(q["field"], q["p"]): math.nan if q["value"] is None else q["value"] for q in limits["quantiles"]}
        self._program = Program(found, known, _functions(self.config["entities"]))
        self._top = _Top(self.config["top"], limits["top"], len(found)) if self.config["top"] else None
        self._bound = _Bound(**self.config["bound"]) if self.config["bound"] else None
        self._invert = self.config["invert"]
        self._first = True
        self._sought = Sought(name for clause in found for name in named(clause.node))
        self.steps = ("--invert",) if self._invert else tuple(reasons(found, self.config["top"]))

    @property
    def notices(self) -> list[str]:
        """Fields that were missing, and scores whose maker is not known."""
        missing = self._program.missing + (self._top.missing if self._top else Counter())
        told = [
            f"field {name} was missing in {count:,} record{'s' * (count > 1)}{self._sought.meant(name)}"
            for name, count in missing.most_common()
        ]
        return [*(self._bound.notices if self._bound else ()), *told]

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self.decide(record) for record in items]

    def decide(self, record: Record) -> Outcome:
        """The record, or why it goes."""
        if self._first:  # alone: by the block no more of them are seen
            self._first = False
            self._sought.look(record)
        if self._bound:
            self._bound.check(record)
        step = self._program.test(record)
        if step == HELD and self._top and not self._top.holds(record):
            step = len(self._program.clauses)
        if self._invert:
            return Drop("filter", "--invert") if step == HELD else record
        if step == HELD:
            return record
        if step < len(self._program.clauses):
            return Drop("filter", self.steps[step], *self._program.sides(step, record))
        assert self._top is not None
        return Drop("filter", self.steps[step], record.lookup(self._top.by), self._top.value)

    def row_test(self, columns: Columns) -> Callable[[Any], int] | None:
        test = self._program.row_test(columns)
        for more in (self._top, self._bound):
            test = more.row_test(columns, test) if more and test else test
        if test is None or not self._invert:
            return test
        held = test
        return lambda row: 0 if held(row) == HELD else HELD


class RankedFilter(WholeStage):
    """As Filter, where all records together decide: q() in a condition, or the top by a field.

    The limits are those of all records read; the conditions do not come before them. `limits` is what was learned.
    """

    verb: ClassVar[str] = "filter"
    inline: ClassVar[bool] = True
    defaults: ClassVar[dict[str, Any]] = DEFAULTS

    def setup(self) -> None:
        found = read_clauses(self.config["where"])
        self._fields = ranked_fields(found, self.config["top"])
        self._pack = struct.Struct(f"<{len(self._fields)}d").pack
        self.limits: dict[str, Any] = {}
        self.steps = tuple(reasons(found, self.config["top"]))
        self._filter: Filter | None = None
        self._sought = Sought(self._fields)
        _functions(self.config["entities"])  # what cannot be read is said before anything else is

    def fingerprint(self) -> dict[str, Any]:
        return {"fields": self._fields}

    @property
    def notices(self) -> list[str]:
        return self._filter.notices if self._filter else []

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._row(record) for record in items]

    def _row(self, record: Record) -> Row:
        self._sought.look(record)
        return Row(self._pack(*(_number(record, name, math.nan) for name in self._fields)))

    def learn(self, rows: Rows) -> None:
        self._sought.check()
        self.limits = learn_limits(rows, self._fields, self.config)
        self._filter = Filter({**self.config, "limits": self.limits})
        self._filter.setup()
        self.steps = self._filter.steps

    def decide(self, record: Record, row: bytes, number: int) -> Outcome:
        assert self._filter is not None
        return self._filter.decide(record)


class _Top:
    """The best by a field: above a value, or at it and with an id up to the last that was taken."""

    def __init__(self, top: dict[str, Any], limit: dict[str, Any], step: int) -> None:
        self.by, self._step = top["by"], step
        self.value: float = math.inf if limit["value"] is None else limit["value"]
        self._last: str | None = limit["last_id"]
        self.missing: Counter[str] = Counter()

    def holds(self, record: Record) -> bool:
        score = _number(record, self.by, None)
        if score is None:
            self.missing[self.by] += 1
            return False
        if score != self.value:
            return bool(score > self.value)
        return self._last is None or (record.id or "") <= self._last

    def row_test(self, columns: Columns, before: Callable[[Any], int]) -> Callable[[Any], int] | None:
        path = columns.want(self.by, int | float | None)
        if path is None:
            return None
        value, last_step = self.value, self._step

        def test(row: Any) -> int:
            step = before(row)
            if step != HELD:
                return step
            score = row
            for attribute in path:
                score = getattr(score, attribute)
            score = float(score)
            if score == value:
                raise LookupError  # its id decides
            return HELD if score > value else last_step

        return test


class _Bound:
    """Scores that have to be those of one architecture."""

    def __init__(self, field: str, model: str, preset: str) -> None:
        self._field, self._model, self._preset = field, model, preset
        self._good: set[str] = set()
        self.notices: list[str] = []

    def check(self, record: Record) -> None:
        """Raises ClipkitError for a score of another model; notes the first that does not say whose it is."""
        if record.lookup(self._field) is None:
            return
        via = record.get("via")
        maker = via.get(self._field) if isinstance(via, dict) else None
        if maker in self._good:
            return
        if not isinstance(maker, str):
            if not self.notices:
                self.notices = [f"{self._field} does not say whose it is (via): taken for {self._model}'s"]
        elif architecture(maker) != self._model:
            raise ClipkitError(
                f"--preset {self._preset} is about {self._field} of {self._model}, and these are of {maker}",
                "score with that model, or --any-model if the numbers are meant for these",
                where=record.where,
            )
        else:
            self._good.add(maker)

    def row_test(self, columns: Columns, after: Callable[[Any], int]) -> Callable[[Any], int] | None:
        path = columns.inside("via", self._field, str | None)
        if path is None:
            return None
        via, name = path
        good = self._good

        def test(row: Any) -> int:
            makers = getattr(row, via)
            if makers is None or getattr(makers, name) not in good:
                raise LookupError
            return after(row)

        return test


def read_clauses(conditions: list[str]) -> list[Clause]:
    """The clauses of several conditions, in order. Raises WhereError."""
    return [clause for condition in conditions for clause in clauses(condition)]


def is_ranked(config: dict[str, Any]) -> bool:
    """Whether all records together decide. Raises WhereError for a condition that cannot be read."""
    return bool(ranked_fields(read_clauses(config["where"]), config["top"]))


def ranked_fields(found: list[Clause], top: dict[str, Any] | None) -> list[str]:
    """The fields whose values all records have to give before one is decided."""
    names = [quantile.field for clause in found for quantile in clause.quantiles]
    return list(dict.fromkeys([*names, *([top["by"]] if top else [])]))


def reasons(found: list[Clause], top: dict[str, Any] | None) -> list[str]:
    """What records are dropped for, in the order in which it is looked at."""
    flag = [_flags(top)] if top else []
    return [*(clause.text for clause in found), *flag]


def _flags(top: dict[str, Any]) -> str:
    chosen = f"--top-k {top['k']}" if "k" in top else f"--top-fraction {top['fraction']:g}"
    return f"{chosen} --by {top['by']}"


def learn_limits(rows: Rows, fields: list[str], config: dict[str, Any]) -> dict[str, Any]:
    """The limits that a Filter of the same config goes by; JSON, so that parts of the input can be done with it.

    rows: for each record its `fields` as little-endian f64, NaN where missing.
    """
    import numpy as np

    from clipkit.methods.filters.limits import best, quantile

    table = np.memmap(rows.file, "<f8", "r").reshape(-1, len(fields)) if len(rows) else np.empty((0, len(fields)))
    columns = {name: table[:, place] for place, name in enumerate(fields)}
    quantiles = []
    for clause in read_clauses(config["where"]):
        for q in clause.quantiles:
            values = _present(columns[q.field])
            one = {"field": q.field, "p": q.p, "value": quantile(values, q.p), "count": len(values)}
            quantiles += [one] if one not in quantiles else []
    top = config["top"]
    if top:
        given = ~np.isnan(columns[top["by"]])
        values = columns[top["by"]][given]
        top = {**top, "count": len(values), **best(values, top, rows.ids, given=given)}
    return {"quantiles": quantiles, "top": top}


def _present(column: np.ndarray) -> np.ndarray:
    import numpy as np

    kept: np.ndarray = column[~np.isnan(column)]
    return kept


def _functions(entities: dict[str, str] | None) -> dict[str, Callable[[str], bool]]:
    if entities is None:
        return {}
    from clipkit.methods.filters.entities import load_entities

    return {"entity": load_entities(entities["wordnet"], entities["synsets"])}


def _number(record: Record, name: str, absent: Any) -> Any:
    """A field as a float; `absent` where it is missing. Raises RecordError (`bad-type`, `bad-value`)."""
    value = record.lookup(name)
    if value is None:
        return absent
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError("bad-type", f"{name} is no number: {value!r:.60}", where=record.where)
    try:
        return float(value)
    except OverflowError:
        raise RecordError("bad-value", f"{name}: a number too large", where=record.where) from None
