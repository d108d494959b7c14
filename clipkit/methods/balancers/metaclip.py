"""MetaCLIP's balancing (Xu et al., 2023; for many languages Chuang et al., 2025): p = t / max(count, t) for an entry,
and a caption stays if one of its entries is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipkit.errors import UsageError
from clipkit.stream.hashing import share

PURPOSE = "balance"
REFERENCE = "en"  # the language whose t decides that of all others
_BLOCK = 1 << 18  # records whose probabilities are worked out at once
_UNIT = 2.0**32  # probabilities are summed as whole multiples of 1/this: a sum that no order changes
_CLOSE = 1e-3  # records: near enough to the number asked for


def probabilities(counts: np.ndarray, t: float) -> np.ndarray:
    """The probability of each entry, f64: t / max(count, t)."""
    return np.asarray(t / np.maximum(counts, t, dtype=np.float64))


def tail_mass(counts: np.ndarray, t: float) -> float:
    """Which part of all matches is of entries with a count below t."""
    total = int(counts.sum())
    return int(counts[counts < t].sum()) / total if total else 0.0


def limit_of_tail(counts: np.ndarray, mass: float) -> float:
    """The count at which the cumulative share of counts, smallest first, is nearest to a tail mass.

    As MetaCLIP 2 works t out for a language. Entries that occur nowhere are left out: t is a count that there is.
    """
    ascending = np.sort(counts[counts > 0])
    if not len(ascending):
        return 1.0
    shares = np.cumsum(ascending) / ascending.sum()
    return float(ascending[np.abs(shares - mass).argmin()])


def keep_probability(chances: Collection[float]) -> float:
    """The probability that one of independent draws succeeds: 1 - prod(1 - p)."""
    return 1.0 - math.prod(1.0 - p for p in chances)


def drawn(name: str | bytes, caption: int, entry: str, seed: int) -> float:
    """The share of a record, one of its captions (from 0) and an entry: below p it is drawn.

    What is hashed is `CAPTION 0 ENTRY 0 NAME`, where 0 is a zero byte; no entry holds one.
    """
    if isinstance(name, str):
        name = name.encode("utf-8", "surrogatepass")
    return share(b"%d\0%b\0%b" % (caption, entry.encode("utf-8", "surrogatepass"), name), seed, PURPOSE)


@dataclass(frozen=True)
class Limits:
    """t of each language ("" where there is one for all). mass: the tail mass they were worked out from, if any."""

    by_language: Mapping[str, float]
    mass: float | None = None

    @property
    def t(self) -> float | None:
        """The one that a person would name: of all, or of English."""
        return self.by_language.get("", self.by_language.get(REFERENCE))


def limits_of(counts: Mapping[str, np.ndarray], rule: Mapping[str, float]) -> Limits:
    """The t of each language for a rule, {"t": t} or {"tail_mass": mass}. counts: language -> i64 [entries].

    A t is English's where there are several: its tail mass gives that of the others. Raises UsageError without English.
    """
    if "t" not in rule:
        mass = rule["tail_mass"]
        return Limits({language: limit_of_tail(found, mass) for language, found in counts.items()}, mass)
    t = rule["t"]
    if not counts or set(counts) == {""}:
        return Limits({"": t})
    if REFERENCE not in counts:
        raise UsageError(f"--t is about records whose lang is {REFERENCE!r}, and there are none", "give --tail-mass")
    mass = tail_mass(counts[REFERENCE], t)
    others = {language: limit_of_tail(found, mass) for language, found in counts.items() if language != REFERENCE}
    return Limits({**others, REFERENCE: t}, mass)


@dataclass(frozen=True)
class Lists:
    """The entries of records that have some: u32 [m] with repeats where two captions share one, and where each begins.

    starts: i64 [n + 1]. languages: u16 [n], numbers in `names`.
    """

    entries: np.ndarray
    starts: np.ndarray
    languages: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def take(self, numbers: np.ndarray) -> Lists:
        """Some of the records, i64 [k]."""
        lengths = np.diff(self.starts)[numbers]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        entries = self.entries[np.repeat(self.starts[:-1][numbers], lengths) + within]
        return Lists(entries, starts, self.languages[numbers], self.names)

    @classmethod
    def joined(cls, parts: Sequence[Lists]) -> Lists:
        """The records of several, one after the other."""
        names = tuple(sorted({name for part in parts for name in part.names}))
        languages = [np.array([names.index(n) for n in part.names], np.uint16)[part.languages] for part in parts]
        lengths = np.concatenate([np.diff(part.starts) for part in parts])
        starts = np.concatenate([[0], np.cumsum(lengths)])
        return cls(np.concatenate([part.entries for part in parts]), starts, np.concatenate(languages), names)

    def expected(self, counts: Mapping[str, np.ndarray], limits: Limits) -> Expected:
        """How many of the records are kept: the sum of 1 - prod(1 - p), and its variance."""
        total = variance = squares = 0
        misses = self._misses(counts, limits)
        for start in range(0, len(self), _BLOCK):
            kept = -np.expm1(self._summed(misses, start, min(start + _BLOCK, len(self))))
            total += _exact(kept)
            variance += _exact(kept * (1 - kept))
            squares += _exact(kept * kept)
        return Expected(total / _UNIT, variance / _UNIT, squares / _UNIT, len(self))

    def _misses(self, counts: Mapping[str, np.ndarray], limits: Limits) -> np.ndarray:
        """log(1 - p) of each entry in each language, f64 [languages * entries]."""
        with np.errstate(divide="ignore"):
            rows = [np.log1p(-probabilities(counts[name], limits.by_language[name])) for name in self.names]
        return np.concatenate(rows) if rows else np.empty(0)

    def _summed(self, misses: np.ndarray, start: int, stop: int) -> np.ndarray:
        """The sum of log(1 - p) over the entries of each record, f64 [stop - start]."""
        first = self.starts[start]
        at: Any = self.entries[first : self.starts[stop]]
        if len(self.names) > 1:
            width = len(misses) // len(self.names)
            lengths = np.diff(self.starts[start : stop + 1])
            at = at + np.repeat(self.languages[start:stop].astype(np.int64) * width, lengths)
        return np.asarray(np.add.reduceat(misses[at], self.starts[start:stop] - first))


def _exact(values: np.ndarray) -> int:
    return int(np.rint(values * _UNIT).astype(np.int64).sum())


@dataclass(frozen=True)
class Expected:
    """How many of some records are kept, on average: total; of those looked at, `looked`, squares is the sum of P * P.

    variance: of the number kept, over seeds.
    """

    total: float
    variance: float
    squares: float
    looked: int

    @property
    def deviation(self) -> float:
        """The standard deviation of the number kept."""
        return math.sqrt(self.variance)

    def of(self, records: int) -> tuple[Expected, float]:
        """The same of so many records, of which these are a random sample; and the standard error of its total."""
        if not self.looked or records == self.looked:
            return self, 0.0
        factor, mean = records / self.looked, self.total / self.looked
        spread = max(0.0, self.squares / self.looked - mean * mean)
        error = records * math.sqrt(spread / self.looked * (1 - self.looked / records))
        return Expected(self.total * factor, self.variance * factor, self.squares * factor, records), error


def solve(wanted: float, expected: Callable[[float], float], highest: float) -> float:
    """The t for which `expected` is as wanted, by halving: it never falls as t grows.

    highest: a t that keeps all that can be kept. Where it jumps over what is wanted, the nearer side.
    """
    low, high = 0.0, highest
    below, above = 0.0, expected(highest)
    if above - wanted <= _CLOSE:
        return highest
    while high - low > 1e-12 * high:
        t = (low + high) / 2
        found = expected(t)
        if abs(found - wanted) <= _CLOSE:
            return t
        if found < wanted:
            low, below = t, found
        else:
            high, above = t, found
    return low if low > 0 and wanted - below < above - wanted else high
