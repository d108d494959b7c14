"""prototypes, tldr, image-based and random: cases worked by hand, and from the rules, slowly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.errors import UsageError
from clipkit.methods.pruners.base import Pool
from tests.methods.pruners.pools import made, pool, pools

nan = float("nan")


def kept(pruner, given: Pool, size: int | None) -> list[int]:
    return np.flatnonzero(pruner.choose(given, pruner.allocate(given, size))).tolist()


# prototypes


def test_the_hardest_or_the_easiest_whatever_cluster_they_are_in() -> None:
    two = pool([[0.1, 0.5, 0.3], [0.4, 0.2]])
    assert kept(made("prototypes"), two, 2) == [1, 3]
    assert kept(made("prototypes", which="easy"), two, 2) == [0, 4]
    assert made("prototypes").facts(two, 2) == {"which": "hard", "limit": 0.4}


def test_equal_distances_go_by_ticket() -> None:
    assert kept(made("prototypes"), pool([[0.5, 0.5], [0.5, 0.1]]), 2) == [0, 1]


@settings(max_examples=100, deadline=None)
@given(pools(), st.sampled_from(["hard", "easy"]), st.floats(0, 1))
def test_prototypes_by_sorting(any_pool: Pool, which: str, part: float) -> None:
    size, sign = int(part * len(any_pool)), 1 if which == "easy" else -1
    order = sorted(range(len(any_pool)), key=lambda i: (sign * any_pool.distance[i], any_pool.ticket[i]))
    assert kept(made("prototypes", which=which), any_pool, size) == sorted(order[:size])


# tldr


def test_every_third_of_a_cluster_if_of_the_better_half() -> None:
    """Of the distances .1 to .7 in order every third is .1, .4, .7. The better half by score is 5 of 9: those of 5 and
    more. The second cluster keeps its nearest, which is of it."""
    distances = [[0.3, 0.1, 0.2, 0.7, 0.4, 0.6, 0.5], [0.2, 0.1]]
    two = pool(distances, scores=[9, 8, 7, 6, 1, 2, 3, 4, 5])
    tldr = made("tldr", sized=False, every=3)
    assert kept(tldr, two, None) == [1, 3, 8]
    by_score, by_place = tldr.why(two, tldr.allocate(two, None))
    assert by_score.of.tolist() == [False, False, False, False, True, True, True, True, False]
    assert (by_score.value[4], by_score.limit[4]) == (1, 5)
    assert (by_place.value[0], by_place.limit[0]) == (3, 3)


def test_with_a_size_evenly_spaced_among_the_better() -> None:
    """Ten records of one cluster, all of the better part: 2 stand at floor(.5 * 10 / 2) and floor(1.5 * 10 / 2)."""
    ten = pool([[i / 10 for i in range(10)]], scores=[1] * 10)
    assert kept(made("tldr", best_fraction=1), ten, 2) == [2, 7]
    assert kept(made("tldr", best_fraction=1), ten, 3) == [1, 5, 8]
    assert kept(made("tldr"), ten, 5) == [0, 1, 2, 3, 4]  # the better half: equal scores by ticket


@settings(max_examples=100, deadline=None)
@given(pools(), st.sampled_from([0.2, 0.5, 1]), st.floats(0, 1))
def test_tldr_slowly(any_pool: Pool, fraction: float, part: float) -> None:
    tldr = made("tldr", best_fraction=fraction)
    scored = [i for i in range(len(any_pool)) if not np.isnan(any_pool.score[i])]
    best = sorted(scored, key=lambda i: (-any_pool.score[i], any_pool.ticket[i]))[: int(fraction * len(scored) + 0.5)]
    assert tldr.most(any_pool) == len(best)
    quota = tldr.allocate(any_pool, int(part * len(best)))
    expected = []
    for j in range(any_pool.k):
        members = sorted(
            (i for i in best if any_pool.cluster[i] == j), key=lambda i: (any_pool.distance[i], any_pool.ticket[i])
        )
        assert abs(quota[j] - quota.sum() * len(members) / max(len(best), 1)) < 1
        expected += [members[(2 * i + 1) * len(members) // (2 * int(quota[j]))] for i in range(quota[j])]
    assert np.flatnonzero(tldr.choose(any_pool, quota)).tolist() == sorted(expected)
    every = made("tldr", sized=False, best_fraction=fraction, every=3)
    by_rule = []
    for j in range(any_pool.k):
        members = [i for i in range(len(any_pool)) if any_pool.cluster[i] == j]
        members.sort(key=lambda i: (any_pool.distance[i], any_pool.ticket[i]))
        by_rule += [i for i in members[::3] if i in best]
    assert kept(every, any_pool, None) == sorted(by_rule)


def test_without_a_score_none_stays() -> None:
    two = pool([[0.1, 0.2]], scores=[nan, 1])
    assert made("tldr", best_fraction=1).most(two) == 1
    assert kept(made("tldr", best_fraction=1), two, 1) == [1]


def test_what_tldr_needs() -> None:
    with pytest.raises(UsageError, match="--best-by"):
        made("tldr", best_by=None)
    with pytest.raises(UsageError, match="--every"):
        made("tldr", every=5)
    for fraction in (0, 1.5, nan):
        with pytest.raises(UsageError, match="--best-fraction"):
            made("tldr", best_fraction=fraction)


# image-based


def test_all_of_the_clusters_that_are_hit() -> None:
    three = pool([[0.1, 0.2], [0.3], [0.4, 0.5, 0.6]], hits=[3, 0, 1])
    image_based = made("image-based", sized=False)
    assert kept(image_based, three, None) == [0, 1, 3, 4, 5]
    assert image_based.facts(three, None) == {"reference": {"items": 4, "clusters_hit": 2}}


def test_with_a_size_as_the_reference_is_spread() -> None:
    """Hits 6, 0 and 2. Of 4 stay 3 and 1. Of 6 it would be 4.5 and 1.5, but the first has 4: 2 are of the last."""
    three = pool([[0.1] * 4, [0.3], [0.4] * 9], hits=[6, 0, 2])
    image_based = made("image-based")
    assert image_based.allocate(three, 4).tolist() == [3, 0, 1]
    assert image_based.allocate(three, 6).tolist() == [4, 0, 2]
    assert kept(image_based, three, 6) == [0, 1, 2, 3, 5, 6]
    assert image_based.most(three) == 13
    assert image_based.allocate(three, 13).tolist() == made("image-based", sized=False).allocate(three, None).tolist()


def test_it_needs_a_reference() -> None:
    with pytest.raises(UsageError, match="--reference"):
        made("image-based", reference=None)


# random


def test_those_of_the_first_tickets_and_a_larger_one_contains_a_smaller() -> None:
    one = pool([[0.0] * 6])
    assert kept(made("random"), one, 2) == [0, 1]
    assert kept(made("random"), one, 4) == [0, 1, 2, 3]
