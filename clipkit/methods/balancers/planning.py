"""What if: t against how many records it keeps, and which entries are head and tail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from clipkit.methods.balancers.counts import Counts
from clipkit.methods.balancers.metaclip import REFERENCE, Limits, limits_of
from clipkit.stream.record import Record

PUBLISHED = (20_000.0, 170_000.0)  # t of MetaCLIP's 400 million pairs, and of its 2.5 billion
PUBLISHED_MASS = 0.06  # the tail mass that both are about
SHOWN = 20  # entries of the head, and of the tail


def plan(counts: Counts, limits: Limits | None) -> Iterator[Record]:
    """The curve, a record a t (kind `curve`), then entries (kind `head` and `tail`), by their counts."""
    rows = [(chosen, "chosen") for chosen in [limits] if chosen] + [_published(counts)]
    steps = _steps(counts)
    rows += [(limits_of(counts.found, {"t": t}), "published" if t in PUBLISHED else "") for t in steps]
    named: dict[float, tuple[Limits, str]] = {}
    for row, note in rows:  # of one t the first
        named.setdefault(_order(row), (row, note))
    for _, (row, note) in sorted(named.items()):
        yield _curve(counts, row, note)
    for language in sorted(counts.found):
        yield from _entries(counts, limits, language)


def _published(counts: Counts) -> tuple[Limits, str]:
    return limits_of(counts.found, {"tail_mass": PUBLISHED_MASS}), f"tail mass {PUBLISHED_MASS:.0%}"


def _order(limits: Limits) -> float:
    return limits.t if limits.t is not None else limits.mass or 0.0


def _steps(counts: Counts) -> list[float]:
    """1, 2, 5, 10, ... up to the highest count, and the published ones below it; none without a language to go by."""
    reference = counts.found.get("", counts.found.get(REFERENCE))
    if reference is None:
        return []
    highest = float(reference.max(initial=0))
    steps = [digit * 10.0**power for power in range(10) for digit in (1, 2, 5)]
    reached = [t for t in steps if t < highest]
    return sorted({*reached, *steps[len(reached) : len(reached) + 1], *(t for t in PUBLISHED if t < highest)})


def _curve(counts: Counts, limits: Limits, note: str) -> Record:
    expected, error = counts.expected(limits)
    pairs = [(found, limits.by_language[name]) for name, found in counts.found.items()]
    tail = sum(int(found[found < t].sum()) for found, t in pairs)
    fields: dict[str, Any] = {
        "kind": "curve",
        "t": limits.t,
        "expected": round(expected.total, 3),
        "fraction": round(expected.total / counts.records, 6) if counts.records else None,
        "deviation": round(expected.deviation, 3),
        "standard_error": round(error, 3),
        "tail_matches": tail,
        "tail_mass": round(tail / counts.matches, 6) if counts.matches else None,
        "head_entries": sum(int((found >= t).sum()) for found, t in pairs),
    }
    return Record(fields | ({"note": note} if note else {}))


def _entries(counts: Counts, limits: Limits | None, language: str) -> Iterator[Record]:
    """The most frequent entries, and the least frequent that occur."""
    ranked = list(counts.ranked(language))
    tail = ranked[max(SHOWN, len(ranked) - SHOWN) :]
    for kind, entries in (("head", ranked[:SHOWN]), ("tail", tail)):
        for name, count in entries:
            fields: dict[str, Any] = {"kind": kind, "entry": name, "count": count}
            if limits:
                t = limits.by_language[language]
                fields["p"] = round(t / max(count, t), 6)
            yield Record(fields | ({"lang": language} if language else {}))
