"""Chain, greedy and component over links that are written down, or random."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from clipkit.methods.dedupers import rules
from clipkit.methods.dedupers.base import Links, Pairs
from clipkit.methods.dedupers.rules import NO_METHOD, RankedLinks, Rule, judge


class Written(Links):
    """Links that a test writes down: the class of each item, and pairs of classes."""

    def __init__(self, classes: list[int], pairs: set[tuple[int, int]]) -> None:
        super().__init__(np.array(classes, np.int64).reshape(-1), max(classes, default=-1) + 1)
        self._pairs = [(a, b) for a, b in sorted(pairs) if a != b]

    def near(self, some: np.ndarray, others: np.ndarray) -> Pairs:
        for a, b in self._pairs:
            if (some[a] and others[b]) or (some[b] and others[a]):
                yield np.array([a]), np.array([b])

    def matrix(self) -> np.ndarray:
        """Who is linked to whom, bool [n, n]."""
        near = np.eye(self.count, dtype=bool)
        for a, b in self._pairs:
            near[a, b] = near[b, a] = True
        there = self.classes >= 0
        linked = near[self.classes][:, self.classes] if self.count else np.zeros((len(there),) * 2, bool)
        linked = linked & there & there[:, None]
        np.fill_diagonal(linked, False)
        return linked


def plain(linked: np.ndarray, rule: Rule, fixed: int = 0) -> list[int]:
    """The ranks that a rule keeps, by its definition."""
    n = len(linked)
    if rule == "chain":
        return [i for i in range(n) if i < fixed or not linked[i, :i].any()]
    if rule == "greedy":
        kept: list[int] = []
        for i in range(n):
            if i < fixed or not linked[i, kept].any():
                kept.append(i)
        return kept
    linked = linked.copy()
    linked[:fixed, :fixed] = False
    _, labels = connected_components(coo_array(linked), directed=False)
    return [i for i in range(n) if i < fixed or labels[i] not in labels[:i]]


@st.composite
def written(draw: st.DrawFn, n: int) -> Written:
    """Any links of n items; no class is empty, as none is that a method makes."""
    names = draw(st.lists(st.integers(-1, max(n // 2, 1)), min_size=n, max_size=n))
    there = sorted({name for name in names if name >= 0})
    number = st.integers(0, max(len(there) - 1, 0))
    pairs = draw(st.sets(st.tuples(number, number), max_size=2 * n if there else 0))
    return Written([there.index(name) if name >= 0 else -1 for name in names], pairs)


several = st.integers(0, 14).flatmap(
    lambda n: st.tuples(st.lists(written(n), min_size=1, max_size=3), st.permutations(range(n)), st.integers(0, n))
)


@pytest.mark.parametrize("rule", rules.RULES)
@pytest.mark.parametrize("held", [0, 1 << 20])  # greedy in rounds; or one by one after the first
@given(given=several)
def test_a_rule_is_its_definition(rule: Rule, held: int, given: tuple[list[Written], list[int], int]) -> None:
    methods, permutation, fixed = given
    order = np.array(permutation, np.int64)
    linked = np.zeros((len(order),) * 2, bool)
    for method in methods:
        linked |= method.matrix()
    linked = linked[order][:, order]
    verdict = judge([RankedLinks(m, order) for m in methods], len(order), rule, fixed=fixed, held=held)
    kept = plain(linked, rule, fixed)
    assert np.flatnonzero(verdict.kept == np.arange(len(order))).tolist() == kept
    assert verdict.counts[rule] == len(kept) - fixed
    assert set(verdict.kept.tolist()) <= set(kept)
    assert (verdict.method[~linked.any(axis=1)] == NO_METHOD).all()
    assert (verdict.method[verdict.kept != np.arange(len(order))] < len(methods)).all()
    if rule == "greedy":
        gone = np.flatnonzero(verdict.kept != np.arange(len(order)))
        assert linked[gone, verdict.kept[gone]].all()  # each goes for one that it is itself linked to


def test_counts_are_ordered_and_three_differ() -> None:
    """0, .2 and .4 rad at a threshold of .25: chain keeps the first, greedy the first and the last."""
    links = RankedLinks(Written([0, 1, 2], {(0, 1), (1, 2)}), np.arange(3))
    verdicts = {rule: judge([links], 3, rule) for rule in rules.RULES}
    assert verdicts["chain"].counts == {"chain": 1, "greedy": 2, "component": 1}
    assert {rule: verdict.kept.tolist() for rule, verdict in verdicts.items()} == {
        "chain": [0, 0, 0],
        "greedy": [0, 0, 2],
        "component": [0, 0, 0],
    }
    # where the order is not that of the angles, chain keeps two of one group, component never
    turned = RankedLinks(Written([0, 1, 2], {(0, 2), (1, 2)}), np.arange(3))
    assert judge([turned], 3, "chain").counts == {"chain": 2, "greedy": 2, "component": 1}


def test_references_stay_and_can_be_all_that_counts() -> None:
    links = RankedLinks(Written([0, 0, 0, 1, 1], set()), np.arange(5))
    verdict = judge([links], 5, "chain", fixed=2)
    assert verdict.kept.tolist() == [0, 1, 0, 3, 3]
    assert judge([links], 5, "greedy", fixed=2, within=False).kept.tolist() == [0, 1, 0, 3, 4]
    assert verdict.counts == {"chain": 1, "greedy": 1, "component": 1}


def test_a_long_chain_and_many_equals_take_no_long_time() -> None:
    n = 20_000
    chain = RankedLinks(Path(n), np.arange(n))
    verdict = judge([chain], n, "greedy")
    assert verdict.kept[:4].tolist() == [0, 0, 2, 2]
    assert verdict.counts == {"chain": 1, "greedy": n // 2, "component": 1}
    equal = RankedLinks(Links(np.zeros(200_000, np.int64), 1), np.arange(200_000))
    assert judge([equal], 200_000, "greedy").counts == {"chain": 1, "greedy": 1, "component": 1}


class Path(Links):
    """Each item linked to the next: frames of a film."""

    def __init__(self, n: int) -> None:
        super().__init__(np.arange(n), n)

    def near(self, some: np.ndarray, others: np.ndarray) -> Pairs:
        a = np.arange(self.count - 1)
        asked = (some[a] & others[a + 1]) | (others[a] & some[a + 1])
        yield a[asked], a[asked] + 1
