"""The indices find what comparing all with all finds, whoever else is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.methods.contamination import references
from clipkit.methods.contamination.benchmarks import Benchmark, Reading, Signature
from clipkit.methods.contamination.index import EqualKeys, Index, NearCodes, NearFeatures
from clipkit.methods.contamination.references import References
from clipkit.methods.dedupers.base import Deduper
from clipkit.methods.dedupers.exact import Bytes
from clipkit.methods.dedupers.hamming import MOST_BITS, PHash
from clipkit.methods.dedupers.semantic import Semantic

Pair = tuple[int, int, float]


def filled(index: Index, items: Sequence[Signature]) -> Index:
    for number, item in enumerate(items):
        index.add(number, item)
    index.close()
    return index


def pairs(index: Index, asked: Sequence[Signature]) -> list[Pair]:
    found = [zip(at.tolist(), to.tolist(), far.tolist(), strict=True) for at, to, far in index.find(asked)]
    return sorted(pair for some in found for pair in some)


def code(value: int | None) -> Signature:
    return Signature([b"" if value is None else value.to_bytes(8)], None)


def unit(rows: np.ndarray) -> np.ndarray:
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


codes = st.lists(st.none() | st.integers(0, 2**64 - 1) | st.integers(0, 300), max_size=30)


@given(codes, codes, st.integers(0, MOST_BITS))
def test_codes_as_all_with_all(items: list[int | None], asked: list[int | None], bits: int) -> None:
    index = filled(NearCodes(0, bits), [code(value) for value in items])
    expected = [
        (at, to, float((a ^ b).bit_count()))
        for at, a in enumerate(asked)
        for to, b in enumerate(items)
        if a is not None and b is not None and (a ^ b).bit_count() <= bits
    ]
    assert pairs(index, [code(value) for value in asked]) == expected


@pytest.mark.parametrize("bits", range(MOST_BITS + 1))
def test_codes_a_few_bits_from_many(bits: int) -> None:
    rng = np.random.default_rng(bits)
    items = rng.integers(0, 2**64, 3000, dtype=np.uint64).tolist()
    asked = [
        value ^ sum(1 << int(bit) for bit in rng.choice(64, rng.integers(0, bits + 4), replace=False))
        for value in items[:60]
    ]
    found = pairs(filled(NearCodes(0, bits), [code(value) for value in items]), [code(value) for value in asked])
    assert found == [
        (at, to, float((a ^ b).bit_count()))
        for at, a in enumerate(asked)
        for to, b in enumerate(items)
        if (a ^ b).bit_count() <= bits
    ]
    assert found


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1).map(np.random.default_rng), st.floats(1e-4, 1.5))
def test_features_as_all_with_all_alone_or_together(rng: np.random.Generator, eps: float) -> None:
    dim = int(rng.integers(2, 40))
    centres = rng.standard_normal((4, dim))
    rows = unit(centres[rng.integers(0, 4, 90)] + rng.choice([0.001, 0.1, 1]) * rng.standard_normal((90, dim)))
    items, asked = [Signature([], row) for row in rows[:60]], [Signature([], row) for row in rows[60:]]
    index = filled(NearFeatures(dim, eps), items)
    cosines = rows[60:].astype(np.float64) @ rows[:60].astype(np.float64).T
    together = pairs(index, asked)
    far = {(at, to): distance for at, to, distance in together}
    assert far.keys() <= set(zip(*(x.tolist() for x in np.nonzero(cosines > 1 - eps - 1e-12)), strict=True))
    assert far.keys() >= set(zip(*(x.tolist() for x in np.nonzero(cosines > 1 - eps + 1e-12)), strict=True))
    assert all(abs(distance - (1 - cosines[pair])) <= 5.1e-7 for pair, distance in far.items())
    alone = [(at, to, distance) for at, one in enumerate(asked) for _, to, distance in pairs(index, [one])]
    assert sorted(alone) == together


def test_features_near_the_limit_are_decided_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosines 1e-8 apart, which float32 cannot tell, on both sides of the limit; in blocks and pieces of a few."""
    monkeypatch.setattr("clipkit.methods.contamination.index._COLUMNS", 7)
    monkeypatch.setattr("clipkit.methods.contamination.index._AGAIN", 3)
    rng = np.random.default_rng(0)
    query = unit(rng.standard_normal((1, 64)))[0]
    aside = unit(rng.standard_normal((50, 64)))
    rows = unit(0.9 * query + np.sqrt(1 - 0.81) * aside)
    cosines = rows.astype(np.float64) @ query.astype(np.float64)
    limit = float(np.median(cosines))
    order = np.argsort(cosines)
    assert cosines[order[25]] - cosines[order[24]] > 1e-12
    index = filled(NearFeatures(64, 1 - limit), [Signature([], row) for row in rows])
    assert [to for _, to, _ in pairs(index, [Signature([], query)])] == np.flatnonzero(cosines > limit).tolist()


def test_what_has_none_meets_nothing() -> None:
    nothing = Signature([b""], None)
    for index in (EqualKeys(0), NearCodes(0, 16), NearFeatures(4, 1.9)):
        assert pairs(filled(index, [nothing, nothing]), [nothing]) == []
    for empty in (EqualKeys(0), NearCodes(0, 16), NearFeatures(4, 1.9)):
        assert pairs(filled(empty, []), [Signature([bytes(8)], np.ones(4, np.float32) / 2)]) == []


class Made(Benchmark):
    """A benchmark whose items are at hand."""

    def __init__(self, name: str, items: Sequence[tuple[str, Signature]]) -> None:
        super().__init__(name, name)
        self._items = items

    def items(self, reading: Reading) -> Sequence[tuple[str, Signature]]:  # type: ignore[override]
        return self._items


def made(methods: Sequence[Deduper], **benchmarks: Sequence[tuple[str, Signature]]) -> References:
    found = References(methods, 2)
    found.read([Made(name, items) for name, items in benchmarks.items()], None)  # type: ignore[arg-type]
    return found


METHODS = (Bytes({}), PHash({"hamming": 3}), Semantic({"eps": 0.5}))


def signature(data: bytes, value: int, x: float, y: float) -> Signature:
    return Signature([data, value.to_bytes(8), b""], np.array([x, y], np.float32))


def test_methods_in_their_order_then_the_nearest_first() -> None:
    one = [("far", signature(b"x" * 16, 0b111, 0, 1)), ("near", signature(b"a" * 16, 0b1, 1, 0))]
    other = [("between", signature(b"", 0b11, 0.8, 0.6)), ("same", signature(b"a" * 16, 0, -1, 0))]
    found = made(METHODS, one=one, other=other).overlaps(
        [signature(b"a" * 16, 0, 1, 0), signature(b"", 1 << 60, -1, 0)]
    )
    assert [tuple(hit.values()) for hit in found[0]] == [
        ("one", "near", "bytes", 0),
        ("other", "same", "bytes", 0),
        ("other", "same", "phash", 0),
        ("one", "near", "phash", 1),
        ("other", "between", "phash", 2),
        ("one", "far", "phash", 3),
        ("one", "near", "semantic", 0.0),
        ("other", "between", "semantic", 0.2),
    ]
    assert [tuple(hit.values()) for hit in found[1]] == [
        ("other", "same", "phash", 1),
        ("one", "near", "phash", 2),
        ("other", "between", "phash", 3),
        ("other", "same", "semantic", 0.0),
    ]


def test_of_one_method_and_benchmark_only_so_many_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "MOST", 2)
    many = [(f"m{n}", signature(b"", 0b111 >> (n % 4), 0, 1)) for n in range(8)]
    few = [("f", signature(b"a" * 16, 0b111, 0, 1))]
    found = made(METHODS, many=many, few=few).overlaps([signature(b"a" * 16, 0, 0, 1)])[0]
    assert [(hit["id"], hit["by"], hit["distance"]) for hit in found] == [
        ("f", "bytes", 0),
        ("m3", "phash", 0),
        ("m7", "phash", 0),
        ("f", "phash", 3),
        ("m0", "semantic", 0.0),
        ("m1", "semantic", 0.0),
        ("f", "semantic", 0.0),
    ]


def test_the_digest_is_of_all_that_decides() -> None:
    def digest(name: str = "set", item: str = "a", value: int = 1, x: float = 1.0) -> str:
        return made(
            METHODS, **{name: [(item, signature(b"a" * 16, value, x, 0)), ("b", signature(b"", 2, 1, 0))]}
        ).digest

    assert digest() == digest()
    assert len({digest(), digest(name="other"), digest(item="c"), digest(value=3), digest(x=-1.0)}) == 5
