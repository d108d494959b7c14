"""All pairs of near codes: as comparing all with all finds them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.errors import UsageError
from clipkit.methods.dedupers.hamming import MOST_BITS, NearCodes, PHash, near_codes, popcount

code = st.integers(0, 2**64 - 1)


def brute(codes: np.ndarray, bits: int) -> set[tuple[int, int]]:
    numbers = [int(c) for c in codes]
    return {(i, j) for j in range(len(numbers)) for i in range(j) if (numbers[i] ^ numbers[j]).bit_count() <= bits}


def found(codes: np.ndarray, bits: int) -> list[tuple[int, int]]:
    return [
        (min(a, b), max(a, b))
        for one, other in near_codes(codes, bits)
        for a, b in zip(one.tolist(), other.tolist(), strict=True)
    ]


@pytest.mark.parametrize("bits", range(MOST_BITS + 1))
def test_every_pair_once(bits: int) -> None:
    rng = np.random.default_rng(bits)
    seeds = rng.integers(0, 2**64, 40, dtype=np.uint64)
    codes = set(seeds.tolist())
    for seed in seeds.tolist():  # up to a few bits more than asked for, in any place
        for _ in range(6):
            flips = rng.choice(64, rng.integers(0, bits + 4), replace=False)
            codes.add(seed ^ sum(1 << int(bit) for bit in flips))
    array = np.array(sorted(codes), np.uint64)
    pairs = found(array, bits)
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == brute(array, bits)
    assert bits == 0 or pairs


@given(st.sets(st.one_of(code, st.integers(0, 300)), max_size=40), st.integers(0, MOST_BITS))
def test_any_codes(codes: set[int], bits: int) -> None:
    array = np.array(sorted(codes), np.uint64)
    pairs = found(array, bits)
    assert sorted(pairs) == sorted(brute(array, bits))


def test_many_in_one_place_are_compared_in_pieces() -> None:
    low = np.arange(3000, dtype=np.uint64)  # all alike in 52 bits
    assert len(set(found(low, 1))) == len(brute(low[:0], 1)) + sum(
        1 for i in range(3000) for bit in range(12) if (i ^ (1 << bit)) < 3000 and i < (i ^ (1 << bit))
    )


@given(st.lists(code, max_size=20))
def test_popcount(values: list[int]) -> None:
    assert popcount(np.array(values, np.uint64)).tolist() == [value.bit_count() for value in values]


@given(st.lists(st.tuples(code, st.booleans(), st.booleans()), min_size=1, max_size=25, unique_by=lambda one: one[0]))
def test_links_between_those_asked_for(given_: list[tuple[int, bool, bool]]) -> None:
    values = np.array([value & 0xFF for value, _, _ in given_], np.uint64)
    values, first = np.unique(values, return_index=True)
    some = np.array([one for _, one, _ in given_])[first]
    others = np.array([other for _, _, other in given_])[first]
    links = NearCodes(np.arange(len(values)), values, 2)
    pairs = {
        (min(a, b), max(a, b))
        for one, other in links.near(some, others)
        for a, b in zip(one.tolist(), other.tolist(), strict=True)
    }
    expected = brute(values, 2)
    assert pairs == {(a, b) for a, b in expected if (some[a] and others[b]) or (some[b] and others[a])}


def test_bits_have_bounds() -> None:
    with pytest.raises(UsageError, match="--hamming takes 0 to 16 bits, not 17"):
        PHash({"hamming": 17})
