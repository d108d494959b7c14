"""What holds for every method of `clipkit prune`, today's and tomorrow's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.errors import UsageError
from clipkit.methods import PRUNERS
from clipkit.methods.pruners.base import Pruner
from tests.methods.pruners.pools import made, pools, shuffled

NAMES = [entry.name for entry in PRUNERS if not entry.distribution]
every_pruner = pytest.mark.parametrize("name", NAMES)
seeds = st.integers(0, 2**32 - 1).map(np.random.default_rng)


def of(name: str, sized: bool = True) -> tuple[Pruner, st.SearchStrategy]:
    pruner = made(name, sized=sized)
    return pruner, pools(one_cluster=not pruner.needs_clusters)


@every_pruner
def test_exactly_so_many_stay_whatever_the_order(name: str) -> None:
    pruner, strategy = of(name)

    @settings(max_examples=150, deadline=None)
    @given(strategy, st.floats(0, 1), seeds)
    def check(pool, part, rng) -> None:
        size = int(part * pruner.most(pool))
        quota = pruner.allocate(pool, size)
        kept = pruner.choose(pool, quota)
        assert quota.sum() == kept.sum() == size
        assert (quota >= 0).all() and (quota <= pool.sizes).all()
        assert (np.bincount(pool.cluster[kept], minlength=pool.k) == quota).all()

        order = rng.permutation(len(pool))
        again = shuffled(pool, order)
        assert (pruner.allocate(again, size) == quota).all()
        assert (pruner.choose(again, quota) == kept[order]).all()
        columns, others = pruner.columns(pool), pruner.columns(again)
        assert {name: c.tobytes() for name, c in columns.items()} == {name: c.tobytes() for name, c in others.items()}

    check()


@every_pruner
def test_what_goes_has_a_reason(name: str) -> None:
    pruner, strategy = of(name)

    @settings(max_examples=50, deadline=None)
    @given(strategy, st.floats(0, 1))
    def check(pool, part) -> None:
        quota = pruner.allocate(pool, int(part * pruner.most(pool)))
        kept, reasons = pruner.choose(pool, quota), pruner.why(pool, quota)
        assert {reason.name for reason in reasons} <= set(pruner.reasons)
        for number in np.flatnonzero(~kept):
            assert any(reason.of[number] for reason in reasons)
        assert all(len(reason.value) == len(reason.limit) == len(pool) for reason in reasons)
        assert all(len(column) == pool.k for column in pruner.columns(pool).values())

    check()


@every_pruner
def test_without_a_size_its_own_rule_or_a_word(name: str) -> None:
    if not PRUNERS.get(name).has_rule:
        with pytest.raises(UsageError, match="how many stay"):
            made(name, sized=False)
        return
    pruner, strategy = of(name, sized=False)

    @settings(max_examples=50, deadline=None)
    @given(strategy, seeds)
    def check(pool, rng) -> None:
        quota = pruner.allocate(pool, None)
        kept = pruner.choose(pool, quota)
        assert (np.bincount(pool.cluster[kept], minlength=pool.k) == quota).all()
        order = rng.permutation(len(pool))
        assert (pruner.choose(shuffled(pool, order), quota) == kept[order]).all()

    check()


@every_pruner
def test_options_of_others_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"--no-such is no option of --method {name}"):
        made(name, no_such=1)
    made(name, other=None)  # not said


@every_pruner
@pytest.mark.parametrize("n", [1, 38, 2_800, 1_000_000, 280_000_000])
def test_clusters_are_as_published_or_fewer(name: str, n: int) -> None:
    k = made(name).default_k(n)
    assert 1 <= k <= max(n // 39, 1)
    published = {"density": {1_000_000: 100, 280_000_000: 500}, "image-based": {280_000_000: 100_000}}
    published |= {"prototypes": {1_000_000: 1000}, "tldr": {1_000_000: 1000}}
    assert k == published.get(name, {}).get(n, k)
