"""Who goes and who stays, given who is linked to whom: chain, greedy and component.

Items are numbered by rank: 0 is the one that would rather be kept than any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from clipkit.methods.dedupers.base import Links, Pairs

Rule = Literal["chain", "greedy", "component"]
RULES: Final[tuple[Rule, ...]] = ("chain", "greedy", "component")
NO_METHOD: Final = 255

_AT_ONCE: Final = 1 << 20  # pairs expanded at once
HELD: Final = 1 << 22  # pairs held in memory to settle greedily one by one


class RankedLinks:
    """A method's links between items by rank. order: int64 [n], the item of each rank."""

    def __init__(self, links: Links, order: np.ndarray) -> None:
        self._links = links
        self.classes = links.classes[order]
        self._present = self.classes >= 0
        self._members = np.argsort(self.classes, kind="stable")[int((~self._present).sum()) :]
        self._starts = np.searchsorted(self.classes[self._members], np.arange(links.count + 1))

    def class_pairs(self, items: np.ndarray) -> Pairs:
        """Linked pairs of the classes that some items (bool [n]) are of, as `Links.near` gives them."""
        chosen = np.zeros(self._links.count, bool)
        chosen[self.classes[self._present & items]] = True
        return self._links.near(chosen, chosen)

    def pairs(self, later: np.ndarray, earlier: np.ndarray) -> Pairs:
        """Linked pairs (i, j) with j < i, i in `later` and j in `earlier` (bool [n]), in pieces.

        Not all of them: of each i that has such a j the pair with the lowest j is among them, and what all pairs
        connect these connect too. So n equal items give n - 1 pairs.
        """
        n, count = len(later), self._links.count
        first = np.full(count, n)  # the first earlier member of each class
        ranks = np.flatnonzero(self._present & earlier)[::-1]
        first[self.classes[ranks]] = ranks  # of several the last assignment holds
        own = np.flatnonzero(self._present & later)
        ahead = first[self.classes[own]]
        behind = ahead < own
        if behind.any():
            yield own[behind], ahead[behind]
        some = np.zeros(count, bool)
        some[self.classes[own]] = True
        for u, v in self._links.near(some, first < n):
            yield from self._expand(u, first[v], later)
            yield from self._expand(v, first[u], later)

    def _expand(self, classes: np.ndarray, ahead: np.ndarray, later: np.ndarray) -> Pairs:
        """The members of each class that are in `later`, with what is ahead of them where it is."""
        reachable = ahead < len(later)
        classes, ahead = classes[reachable], ahead[reachable]
        sizes = self._starts[classes + 1] - self._starts[classes]
        ends = np.cumsum(sizes)
        begin = 0
        while begin < len(classes):
            done = int(ends[begin - 1]) if begin else 0
            end = max(int(np.searchsorted(ends, done + _AT_ONCE, side="right")), begin + 1)
            few = sizes[begin:end]
            at = np.arange(int(few.sum())) - np.repeat(ends[begin:end] - few - done, few)
            i = self._members[np.repeat(self._starts[classes[begin:end]], few) + at]
            j = np.repeat(ahead[begin:end], few)
            fit = later[i] & (j < i)
            if fit.any():
                yield i[fit], j[fit]
            begin = end


class Components:
    """Connected components, grown pair by pair: union-find on arrays. The root of each is its lowest member."""

    def __init__(self, n: int) -> None:
        self._parent = np.arange(n)

    def join(self, i: np.ndarray, j: np.ndarray) -> None:
        """Connect each i with its j."""
        while len(i):
            i, j = self._roots(i), self._roots(j)
            apart = i != j
            i, j = i[apart], j[apart]
            low, high = np.minimum(i, j), np.maximum(i, j)
            np.minimum.at(self._parent, high, low)

    def roots(self) -> np.ndarray:
        """The lowest member of each item's component, int64 [n]."""
        return follow(self._parent)

    def _roots(self, items: np.ndarray) -> np.ndarray:
        start = items
        while True:
            up = self._parent[items]
            if (up == items).all():
                self._parent[start] = items  # a shorter way next time
                return items
            items = up


def follow(parent: np.ndarray) -> np.ndarray:
    """Where each item comes to when it goes from parent to parent, int64 [n]; parent[i] <= i."""
    while True:
        up: np.ndarray = parent[parent]
        if np.array_equal(up, parent):
            return up
        parent = up


@dataclass(frozen=True, slots=True)
class Verdict:
    """By rank, int64 [n] each. kept: the item that is kept for it; itself if it stays. group: the first item of all
    that are connected with it. method: the first of the methods that links it to an earlier item (to a later one, where
    there is no earlier), uint8; NO_METHOD where none does.

    counts: how many items each rule would keep, references left out.
    """

    kept: np.ndarray
    group: np.ndarray
    method: np.ndarray
    counts: dict[Rule, int]


def judge(
    methods: Sequence[RankedLinks], n: int, rule: Rule, *, fixed: int = 0, within: bool = True, held: int = HELD
) -> Verdict:
    """Apply a rule to the links of all methods together: two items are linked if any method links them.

    chain: an item goes if any earlier item is linked to it, whether that one stays or goes (SemDeDup). greedy: it goes
    if an earlier item that stays is linked to it. component: of all that are connected, over however many others and
    methods, the first stays. So component keeps no more than chain, and chain no more than greedy.

    fixed: so many first items are references: they stay, whatever they are linked to, and are not counted.
    within: without it only references send an item away. held: as `greedy` takes it.
    """
    later, earlier = np.arange(n) >= fixed, np.ones(n, bool)
    if not within:
        earlier = ~later
    ahead = np.arange(n)  # the lowest earlier item linked to it
    components = Components(n)
    as_later, as_earlier = np.full(n, NO_METHOD, np.uint8), np.full(n, NO_METHOD, np.uint8)
    for number, links in enumerate(methods):
        for i, j in links.pairs(later, earlier):
            np.minimum.at(ahead, i, j)
            components.join(i, j)
            as_later[i] = np.minimum(as_later[i], number)
            as_earlier[j] = np.minimum(as_earlier[j], number)
    roots = components.roots()
    nearest = greedy(methods, ahead, later, earlier, held)
    numbers = np.arange(n)
    only = np.where(later, roots, numbers)  # references stay, two of one component too
    parents: dict[Rule, np.ndarray] = {"chain": ahead, "greedy": nearest, "component": only}
    counts = {name: int((parents[name] == numbers)[fixed:].sum()) for name in RULES}
    method = np.where(as_later < NO_METHOD, as_later, as_earlier)
    return Verdict(follow(parents[rule]), roots, method, counts)


def greedy(
    methods: Sequence[RankedLinks],
    ahead: np.ndarray,
    later: np.ndarray,
    earlier: np.ndarray,
    held: int = HELD,
) -> np.ndarray:
    """For each item a kept earlier item that is linked to it, itself if it is kept; int64 [n].

    The result is that of taking items one by one, in order of rank. But no pair need be remembered: in each round what
    has no undecided item ahead of it stays, and what is linked to that goes (Blelloch, Fineman and Shun, "Greedy
    Sequential Maximal Independent Set and Matching are Parallel on Average", 2012). As soon as `held` pairs suffice
    for the rest, they are taken one by one, since a long chain would need many rounds.
    """
    n = len(ahead)
    nearest = np.arange(n)
    undecided = ahead < nearest
    new = ~undecided & earlier
    while undecided.any():
        for i, j in _pairs(methods, undecided & later, new):
            np.minimum.at(nearest, i, j)
        undecided &= nearest == np.arange(n)
        if not undecided.any():
            break
        if _settle(methods, nearest, undecided, held):
            break
        blocked = np.zeros(n, bool)
        for i, _ in _pairs(methods, undecided, undecided):
            blocked[i] = True
        new = undecided & ~blocked
        undecided &= blocked
    return nearest


def _settle(methods: Sequence[RankedLinks], nearest: np.ndarray, undecided: np.ndarray, held: int) -> bool:
    """Decide the rest one by one. False, with nothing done, where that takes more pairs of classes than may be held."""
    beside: list[dict[int, list[int]]] = []  # of each method: a class and those linked to it
    for links in methods:
        linked: dict[int, list[int]] = {}
        for u, v in links.class_pairs(undecided):
            held -= len(u)
            if held < 0:
                return False
            for one, other in zip(u.tolist(), v.tolist(), strict=True):
                linked.setdefault(one, []).append(other)
                linked.setdefault(other, []).append(one)
        beside.append(linked)
    kept: list[dict[int, int]] = [{} for _ in methods]  # of each method: a class and its first kept member
    for item in np.flatnonzero(undecided).tolist():
        classes = [int(links.classes[item]) for links in methods]
        ahead = [
            known[near]
            for known, linked, own in zip(kept, beside, classes, strict=True)
            for near in (own, *linked.get(own, ()))
            if near in known
        ]
        if ahead:
            nearest[item] = min(ahead)
        else:
            for known, own in zip(kept, classes, strict=True):
                if own >= 0:
                    known.setdefault(own, item)
    return True


def _pairs(methods: Sequence[RankedLinks], later: np.ndarray, earlier: np.ndarray) -> Pairs:
    for links in methods:
        yield from links.pairs(later, earlier)
