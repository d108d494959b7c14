"""Who stays: records decided by the counts of a corpus and a t."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

from clipkit.errors import UsageError
from clipkit.methods.balancers.captions import captions_of
from clipkit.methods.balancers.counts import Counts
from clipkit.methods.balancers.metaclip import Limits, drawn, keep_probability, limits_of, solve, tail_mass
from clipkit.stream.captions import is_negative
from clipkit.stream.hashing import name_of
from clipkit.stream.record import Record
from clipkit.stream.stage import Drop, Outcome

STEPS = ("no-entry", "not-sampled")
NO_ENTRY, NOT_SAMPLED = range(2)
_TOLD = 8  # languages whose t is said


class Judge:
    """Decides records by the counts of a corpus and a t. heads: language -> the entries with p < 1, and their p."""

    def __init__(self, config: Mapping[str, Any], counts: Counts) -> None:
        self.config, self.counts = config, counts
        self.limits = chosen_limits(config, counts)
        self.heads = {name: self._head(name) for name in counts.found}
        self._via = f"metaclip/{counts.entries.identity}"

    def _head(self, language: str) -> dict[int, float]:
        found, t = self.counts.found[language], self.limits.by_language[language]
        numbers = (found > t).nonzero()[0].tolist()
        return dict(zip(numbers, (t / found[numbers]).tolist(), strict=True))

    def passes(self, name: str | bytes, caption: int, entries: Collection[int], language: str) -> bool:
        """Whether one of the entries of a caption is drawn."""
        head = self.heads.get(language, {})
        if not head.keys() >= set(entries):  # one of them has p = 1
            return True
        names, seed = self.counts.entries.names, self.config["seed"]
        return any(drawn(name, caption, names[entry], seed) < head[entry] for entry in entries)

    def decide(self, record: Record, language: str, captions: Sequence[Collection[int]]) -> Outcome:
        """The record with the captions that stay, or why it goes. captions: their entries, none where not judged."""
        if not any(captions):
            return Drop("balance", STEPS[NO_ENTRY])
        name = name_of(record)
        passing = [n for n, entries in enumerate(captions) if entries and self.passes(name, n, entries, language)]
        if not passing:
            return self._drop(language, captions)
        if self.config["per"]:
            self._write(record, passing)
        return record

    def _drop(self, language: str, captions: Sequence[Collection[int]]) -> Drop:
        if not self.config["mark"]:
            return Drop("balance", STEPS[NOT_SAMPLED])
        head = self.heads[language]
        value = keep_probability([head[entry] for entries in captions for entry in entries])
        return Drop("balance", STEPS[NOT_SAMPLED], round(value, 6), self.limits.by_language[language])

    def _write(self, record: Record, passing: list[int]) -> None:
        """Leave the captions that passed; where all did, the record is as it came."""
        texts = captions_of(record, self.config["per"])
        listed = record.get("texts") or []
        places = [place for place, entry in enumerate(listed) if not is_negative(entry)]
        added = len(texts) - len(places)  # a `text` before the list
        if self.config["per"] == "text" and len(passing) < len(texts) and record.get("texts") is not None:
            gone = set(places) - {places[n - added] for n in passing if n >= added}
            record.add("texts", [entry for place, entry in enumerate(listed) if place not in gone], self._via)
        kept = [texts[n] for n in passing]
        if record.get("text") not in kept:
            record.add("text", kept[0], self._via)

    @cached_property
    def facts(self) -> dict[str, Any]:
        return facts_of(self.counts, self.limits)

    @cached_property
    def told(self) -> str:
        """A line about t, and how many records it keeps."""
        expected, error = self.counts.expected(self.limits)
        estimated = f", estimated within {error:,.0f}" if error else ""
        each = [f"{name} {t:.9g}".strip() for name, t in sorted(self.limits.by_language.items())]
        t = ", ".join(each[:_TOLD]) + (", ..." if len(each) > _TOLD else "") or "undecided"
        return (
            f"t {t}: {expected.total:,.0f} of {self.counts.records:,} records expected, "
            f"give or take {expected.deviation:,.0f}{estimated}"
        )


def chosen_limits(config: Mapping[str, Any], counts: Counts) -> Limits:
    """The t that a config asks for, given or worked out. Raises UsageError for more records than contain an entry."""
    if config["keep_fraction"] is None:
        rule = {"tail_mass": config["tail_mass"]} if config["t"] is None else {"t": config["t"]}
        return limits_of(counts.found, rule)
    wanted = config["keep_fraction"] * counts.records
    if wanted > counts.matched:
        raise UsageError(
            f"--keep-fraction {config['keep_fraction']:g} is more than there is: "
            f"{counts.matched:,} of {counts.records:,} records contain an entry",
            "ask for less, or give --metadata with more entries",
        )
    highest = max((float(found.max(initial=0)) for found in counts.found.values()), default=0.0) + 1
    t = solve(wanted, lambda t: counts.expected(limits_of(counts.found, {"t": t}))[0].total, highest)
    return limits_of(counts.found, {"t": t})


def facts_of(counts: Counts, limits: Limits | None) -> dict[str, Any]:
    """Counts and limits as JSON, for `--report`."""
    facts: dict[str, Any] = {
        "metadata": counts.entries.identity,
        "entries": len(counts.entries),
        "records": counts.records,
        "texts": counts.texts,
        "matched": counts.matched,
        "matches": counts.matches,
    }
    languages = {name: _language_facts(counts, limits, name) for name in sorted(counts.found)}
    facts |= languages[""] if set(languages) == {""} else {"languages": languages}
    if limits:
        expected, error = counts.expected(limits)
        facts |= {"expected": round(expected.total, 3), "deviation": round(expected.deviation, 3)}
        facts |= {"standard_error": round(error, 3)} if error else {}
    return facts


def _language_facts(counts: Counts, limits: Limits | None, language: str) -> dict[str, Any]:
    found = counts.found[language]
    facts: dict[str, Any] = {"hit": int((found > 0).sum())}
    if limits:
        t = limits.by_language[language]
        facts |= {"t": t, "head": int((found >= t).sum()), "tail_mass": round(tail_mass(found, t), 6)}
    return facts
