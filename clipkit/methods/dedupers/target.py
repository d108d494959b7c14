"""The eps that leaves a given part of the records."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clipkit.features.neighbours import UNSURE
from clipkit.methods.dedupers.rules import RankedLinks, Rule
from clipkit.methods.dedupers.semantic import LEAST_EPS, NearFeatures

_STEPS = 24  # halvings, each a pass over all pairs


def solve_chain(
    links: NearFeatures, order: np.ndarray, others: list[RankedLinks], keep: int, *, fixed: int = 0
) -> float:
    """The eps at which the chain rule keeps `keep` items, references left out; more only where cosines are equal, or
    where it takes more to reach fewer; fewer only where it would have to be under LEAST_EPS.

    An item goes if its cosine to the nearest earlier item is over 1 - eps, so those cosines, sorted, say it, as exactly
    as f32 tells which one is nearest: where very many lie very near, `solve` has to say the rest.
    links, order: of the features, as `RankedLinks` takes them. others: of the other methods.
    """
    n = len(order)
    ranked = RankedLinks(links, order)
    gone = ranked.classes < 0  # without features: nothing here can drop it
    everything, later = np.ones(n, bool), np.arange(n) >= fixed
    stay = gone & later
    for method in others:
        for i, _ in method.pairs(later, everything):
            gone[i] = True
            stay[i] = False
    first = np.full(links.count, n)
    ranks = np.flatnonzero(ranked.classes >= 0)[::-1]
    first[ranked.classes[ranks]] = ranks
    cosines = links.neighbours.nearest_earlier(first)
    open_ = first[(first >= fixed) & ~gone[np.minimum(first, n - 1)]]  # equal to an earlier one: gone at any eps
    values = np.sort(cosines[ranked.classes[open_]])[::-1]
    remove = len(values) + int(stay.sum()) - keep
    if remove <= 0:
        return LEAST_EPS
    if remove >= len(values):
        return 2.0
    return max(float(1 - (values[remove - 1] + values[remove]) / 2), LEAST_EPS)


def solve(rule: Rule, chain_eps: float, keep: int, count: Callable[[float], int]) -> float:
    """The eps at which a rule keeps `keep` items or little more, by halving.

    chain_eps: that of `solve_chain`; greedy needs at least as much, component at most. count: items kept at an eps.
    """
    low, high = max(chain_eps - UNSURE, LEAST_EPS), min(chain_eps + UNSURE, 2.0)
    if rule == "component":
        low = LEAST_EPS
    elif rule == "greedy":
        high = min(2 * chain_eps, 2.0)
    while rule == "greedy" and high < 2 and count(high) > keep:
        low, high = high, min(2 * high, 2.0)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        kept = count(middle)
        if kept == keep:
            return middle
        low, high = (middle, high) if kept > keep else (low, middle)
    return low
