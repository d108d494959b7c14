"""MetaCLIP's balancing as stages: counting, deciding by the counts of files, and both at once."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from clipkit.errors import UsageError
from clipkit.methods.balancers.captions import Reader, is_language
from clipkit.methods.balancers.counts import Counts, load_counts
from clipkit.methods.balancers.entries import Entries, load_entries
from clipkit.methods.balancers.judge import NO_ENTRY, NOT_SAMPLED, STEPS, Judge, chosen_limits, facts_of
from clipkit.methods.balancers.planning import plan
from clipkit.methods.balancers.rows import unpack
from clipkit.stream.record import Record
from clipkit.stream.rows import Columns
from clipkit.stream.selecting import HELD, Selecting
from clipkit.stream.sink import FileSink
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Outcome, Row, Stage
from clipkit.stream.table import Column
from clipkit.stream.whole import WholeStage

DEFAULTS: dict[str, Any] = {
    "metadata": {},
    "per": None,
    "per_language": False,
    "t": None,
    "tail_mass": None,
    "keep_fraction": None,
    "seed": 0,
    "mark": False,
}


# What a plan shows on a terminal.
PLAN_COLUMNS = (
    Column("t", 9, lambda r: _number(r["t"]), right=True, of="curve"),
    Column("kept", 13, lambda r: f"{r['expected']:,.0f}", right=True, of="curve"),
    Column("part", 6, lambda r: _part(r["fraction"]), right=True, of="curve"),
    Column("+-", 7, lambda r: f"{r['deviation']:,.0f}", right=True, of="curve"),
    Column("tail mass", 9, lambda r: _part(r["tail_mass"]), right=True, of="curve"),
    Column("head entries", 12, lambda r: f"{r['head_entries']:,}", right=True, of="curve"),
    Column("", 12, lambda r: str(r.get("note") or ""), of="curve"),
    *(
        column
        for kind in ("head", "tail")
        for column in (
            Column(f"{kind} entry", 28, lambda r: str(r["entry"]), of=kind),
            Column("captions", 13, lambda r: f"{r['count']:,}", right=True, of=kind),
            Column("p", 6, lambda r: _part(r.get("p")), right=True, of=kind, optional=True),
            Column("lang", 12, lambda r: str(r.get("lang") or ""), of=kind, optional=True),
        )
    ),
)
_LANGUAGE_FILE = re.compile(r"([A-Za-z]{2,3}(?:[-_][A-Za-z0-9]+)*)=(.+)")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.6g}"


def _part(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def parse_metadata(words: list[str]) -> dict[str, str]:
    """`FILE` and `LANG=FILE` words as language ("" for all others) -> path. Raises UsageError for two of one."""
    files: dict[str, str] = {}
    for word in words:
        found = _LANGUAGE_FILE.fullmatch(word)
        language, path = found.groups() if found else ("", word)
        if language in files:
            named = f"for {language!r}" if language else "for all languages"
            raise UsageError(f"--metadata names two files {named}: {files[language]} and {path}")
        files[language] = path
    return files


def counting(
    metadata: list[str] | None, *, per_text: bool, per_image: bool, per_language: bool, seed: int
) -> dict[str, Any]:
    """The part of a config that counting takes, by its flags. Raises UsageError."""
    if per_text and per_image:
        raise UsageError("--per-text or --per-image, not both")
    return {
        "metadata": parse_metadata(metadata or []),
        "per": "text" if per_text else "image" if per_image else None,
        "per_language": per_language,
        "seed": seed,
    }


def check(config: Mapping[str, Any], *, needs_rule: bool = False) -> None:
    """Raise UsageError for what cannot be, or does not go together. needs_rule: one of t, tail_mass, keep_fraction."""
    if any(config["metadata"]) and not config["per_language"]:
        language = next(filter(None, config["metadata"]))
        raise UsageError(
            f"--metadata {language}=FILE is about a language", "add --per-language, or name the file ./..."
        )
    rules = {name: config.get(name) for name in ("t", "tail_mass", "keep_fraction")}
    given = {f"--{name.replace('_', '-')}": value for name, value in rules.items() if value is not None}
    hint = "--plan shows what each would keep"
    if len(given) > 1:
        first, second, *_ = given
        raise UsageError(f"{first} or {second}, not both: each says how much stays", hint)
    if needs_rule and not given:
        raise UsageError("how much stays is said by one of --t, --tail-mass and --keep-fraction", hint)
    for flag, value in given.items():
        most = math.inf if flag == "--t" else 1.0
        if not 0 < value <= most or math.isinf(value):
            bounds = "above 0" if flag == "--t" else "above 0 and at most 1"
            raise UsageError(f"{flag} is {bounds}, not {value:g}")


def save_counts(stage: BalanceWhole, path: str) -> None:
    """Write what a stage counted."""
    assert stage.counts is not None
    sink = FileSink(path)
    for record in stage.counts.to_records():
        sink.write(record.encode(), "")
    sink.commit()


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a config that decides what is counted, as files of counts carry it."""
    seed = config["seed"] if config["per"] == "image" else None
    return {"per": config["per"], "per_language": config["per_language"], "seed": seed}


def _entries(config: Mapping[str, Any]) -> Entries:
    return load_entries(config["metadata"], per_language=config["per_language"])


class _Deciding(Stage):
    """What the stages that keep or drop share: what they say of their t, always where it was worked out."""

    adds: ClassVar[tuple[str, ...]] = ("texts", "drop")
    steps = STEPS
    _judge: Judge | None = None  # once the counts are known

    @property
    def notices(self) -> list[str]:
        return [self._judge.told] if self._judge and self.config["t"] is None else []

    @property
    def results(self) -> list[str]:
        return [self._judge.told] if self._judge and self.config["t"] is not None else []

    @property
    def facts(self) -> dict[str, Any]:
        return self._judge.facts if self._judge else {}


class Balance(_Deciding, Selecting):
    """Keeps records by the counts of files: each caption with the probability 1 - prod(1 - t / max(count, t)).

    config: counts, paths of what `BalanceCount` wrote; metadata, language (or "") -> a file of entries, {} for
    WordNet's nouns; per None (the caption `text`), "text" (each of `texts`, which stay or go on their own) or "image"
    (one of them, drawn); per_language: counts and t are each language's own; one of t, tail_mass and keep_fraction;
    seed; mark: dropped records say their probability.
    """

    verb: ClassVar[str] = "balance"
    defaults: ClassVar[dict[str, Any]] = {**DEFAULTS, "counts": []}

    def setup(self) -> None:
        entries = _entries(self.config)
        self._reader = Reader(self.config, entries)
        self._judge = Judge(self.config, load_counts(self.config["counts"], entries, _settings(self.config)))

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._decide(record) for record in items]

    def _decide(self, record: Record) -> Outcome:
        assert self._judge is not None
        language, captions = self._reader.read(record)
        return self._judge.decide(record, language, [found if judged else () for judged, found in captions])

    def row_test(self, columns: Columns) -> Callable[[Any], int] | None:
        if self.config["per"]:
            return None  # a record may change
        assert self._judge is not None
        (text,) = columns.want("text", str | None) or ("",)
        (lang,) = (columns.want("lang", str | None) if self.config["per_language"] else None) or ("",)
        find, passes = self._reader.entries.find, self._judge.passes

        def test(row: Any) -> int:
            name, caption = row.id or row.uid or row.key, getattr(row, text)
            language = getattr(row, lang) if lang else ""
            if not name or caption is None or (lang and not is_language(language)):
                raise ValueError("its line is its name, or it is told what it lacks")
            found = find(caption, language)
            if not found:
                return NO_ENTRY
            if not name.isascii():
                name = unicodedata.normalize("NFC", name)
            return HELD if passes(name, 0, found, language) else NOT_SAMPLED

        return test


class _Counting(WholeStage):
    """What the stages that count for themselves share. A caption is matched again sooner than it is looked up in a
    journal, so they have none."""

    inline: ClassVar[bool] = True

    def setup(self) -> None:
        self._entries = _entries(self.config)
        self._reader = Reader(self.config, self._entries)
        self.counts: Counts | None = None

    def process(self, items: list[Any]) -> list[Outcome]:
        return [Row(self._reader.row(record)) for record in items]

    def learn(self, rows: Rows) -> None:
        self.counts = Counts.of(rows, self._entries, _settings(self.config))


class BalanceWhole(_Deciding, _Counting):
    """As Balance, with the counts of the records themselves. config: as of Balance, without counts."""

    verb: ClassVar[str] = "balance"
    defaults: ClassVar[dict[str, Any]] = DEFAULTS

    def learn(self, rows: Rows) -> None:
        super().learn(rows)
        assert self.counts is not None
        self._judge = Judge(self.config, self.counts)

    def decide(self, record: Record, row: bytes, number: int) -> Outcome:
        assert self._judge is not None
        language, captions = unpack(row, per_language=self.config["per_language"])
        return self._judge.decide(record, language, list(captions))


class BalanceCount(_Counting):
    """Counts entries; writes the counts. config: metadata, per, per_language and seed as of Balance; part, (i, n) where
    the records are that part of a whole, as the counts then say."""

    verb: ClassVar[str] = "balance count"
    mergeable: ClassVar[bool] = True
    defaults: ClassVar[dict[str, Any]] = {**DEFAULTS, "part": None}

    def learn(self, rows: Rows) -> None:
        super().learn(rows)
        assert self.counts is not None
        self.counts = replace(self.counts, part=self.config["part"])

    @property
    def summarises(self) -> bool:
        return True

    def summary(self) -> Iterator[Record]:
        assert self.counts is not None
        return self.counts.to_records()

    @property
    def facts(self) -> dict[str, Any]:
        return facts_of(self.counts, None) if self.counts else {}


class BalancePlan(BalanceCount):
    """Says what each t would keep instead of keeping. config: as of Balance, where counts may be [] and none of t,
    tail_mass and keep_fraction need be given. With counts no record is wanted."""

    verb: ClassVar[str] = "balance"
    mergeable: ClassVar[bool] = False
    defaults: ClassVar[dict[str, Any]] = {**BalanceCount.defaults, "counts": []}

    def learn(self, rows: Rows) -> None:
        if self.config["counts"]:
            self.counts = load_counts(self.config["counts"], self._entries, _settings(self.config))
        else:
            super().learn(rows)
        assert self.counts is not None
        asked = any(self.config[name] is not None for name in ("t", "tail_mass", "keep_fraction"))
        self._limits = chosen_limits(self.config, self.counts) if asked else None

    @property
    def facts(self) -> dict[str, Any]:
        return facts_of(self.counts, self._limits) if self.counts else {}

    def summary(self) -> Iterator[Record]:
        assert self.counts is not None
        return plan(self.counts, self._limits)
