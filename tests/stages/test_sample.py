"""sample: the promised sizes and proportions, subsets, and independence of order."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.api import run
from clipkit.errors import RecordError, UsageError
from clipkit.stages.sample import Sample, SampleExact
from clipkit.stream.hashing import share
from clipkit.stream.record import Record


def records(count: int, **fields: Any) -> list[Record]:
    """fields: a value, or a function of the record's number."""
    made = ({"id": f"r{i}"} | {k: v(i) if callable(v) else v for k, v in fields.items()} for i in range(count))
    return [Record.parse(json.dumps(each).encode(), f"f:{i}") for i, each in enumerate(made)]


def ids(given: list[Record], **config: Any) -> list[str]:
    stage = Sample(config) if config.pop("streams", False) else SampleExact(config)
    return [str(record.id) for record in run(stage, given)]


def test_a_fraction_keeps_shares_below_it_byte_for_byte() -> None:
    given = records(500)
    kept = list(run(Sample({"fraction": 0.3, "seed": 5}), given))
    assert [r.id for r in kept] == [r.id for r in given if share(str(r.id), 5, "sample") < 0.3]
    assert all(r.line is not None for r in kept) and 100 < len(kept) < 200


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (1.0, 500)])
def test_none_and_all_are_fractions(fraction: float, count: int) -> None:
    assert len(ids(records(500), fraction=fraction, seed=0, streams=True)) == count
    assert len(ids(records(500), fraction=fraction)) == count


@given(st.integers(0, 70), st.integers(0, 3))
def test_exactly_k_are_the_first_by_share(count: int, seed: int) -> None:
    given = records(60)
    first = sorted((share(f"r{i}", seed, "sample"), f"r{i}") for i in range(60))[:count]
    assert set(ids(given, count=count, seed=seed)) == {name for _, name in first}


@pytest.mark.parametrize(
    ("fraction", "records_", "count"), [(0.5, 5, 3), (0.35, 10, 4), (0.145, 1000, 145), (0.1, 4, 0)]
)
def test_an_exact_fraction_is_rounded_in_decimal(fraction: float, records_: int, count: int) -> None:
    assert len(ids(records(records_), fraction=fraction)) == count


LABELS = st.lists(st.sampled_from("abcde"), min_size=1, max_size=60)
WEIGHTS = st.sampled_from([None, "w"])


def labelled(labels: list[str]) -> list[Record]:
    return records(len(labels), label=lambda i: labels[i], w=lambda i: (i * 7 % 5) / 2)


@settings(deadline=None)
@given(LABELS, WEIGHTS, st.sampled_from([None, "label"]), st.data())
def test_a_larger_sample_contains_the_smaller_and_order_does_not_matter(
    labels: list[str], weight: str | None, stratify: str | None, data: st.DataObject
) -> None:
    given = labelled(labels)
    small, large = sorted(data.draw(st.tuples(st.integers(0, 60), st.integers(0, 60))))
    config = {"weight": weight, "stratify": stratify}
    few, many = set(ids(given, count=small, **config)), set(ids(given, count=large, **config))
    assert few <= many
    shuffled = data.draw(st.permutations(given))
    assert set(ids(list(shuffled), count=large, **config)) == many
    able = len(given) if weight is None else sum(record["w"] > 0 for record in given)
    assert len(many) == min(large, able)


@settings(deadline=None)
@given(LABELS, st.integers(0, 60))
def test_strata_get_their_seats_by_webster(labels: list[str], count: int) -> None:
    taken = Counter(labels[int(name[1:])] for name in ids(labelled(labels), count=count, stratify="label"))
    sizes, total = Counter(labels), min(count, len(labels))
    assert taken.total() == total
    # Webster: one divisor rounds all quotients, so what one stratum took last no other one had a better claim to.
    if total < len(labels):
        lowest_taken = max(((taken[c] - 0.5) / n for c, n in sizes.items()), default=0)
        assert all((taken[c] + 0.5) / n >= lowest_taken for c, n in sizes.items())
    assert all(abs(taken[c] - total * n / len(labels)) < 2 for c, n in sizes.items())


def test_whole_proportions_are_exact() -> None:
    labels = ["x"] * 60 + ["y"] * 30 + ["z"] * 10
    taken = Counter(labels[int(name[1:])] for name in ids(labelled(labels), fraction=0.1, stratify="label"))
    assert taken == {"x": 6, "y": 3, "z": 1}


def test_so_many_of_each_and_no_more_than_there_are() -> None:
    labels = ["x"] * 10 + ["y"] * 2
    taken = Counter(labels[int(name[1:])] for name in ids(labelled(labels), per=3, stratify="label"))
    assert taken == {"x": 3, "y": 2}


def test_within_a_stratum_the_first_by_share_are_taken() -> None:
    given = labelled(list("xyxyxyxyxy"))
    alone = ids([record for record in given if record["label"] == "x"], count=2)
    assert [name for name in ids(given, per=2, stratify="label") if int(name[1:]) % 2 == 0] == alone


def test_equal_weights_choose_as_none_do() -> None:
    given = records(300, w=2)
    assert ids(given, count=40, weight="w") == ids(given, count=40)


def test_weights_draw_in_proportion() -> None:
    """Of two records the first drawn is the heavier with probability w / (w + v)."""
    heavier = 0
    for seed in range(2000):
        heavier += ids(records(2, w=lambda i: 3 if i else 1), count=1, weight="w", seed=seed) == ["r1"]
    assert abs(heavier - 1500) < 5 * (2000 * 0.75 * 0.25) ** 0.5


def test_two_weighted_draws_follow_successive_sampling() -> None:
    """P(first a, then b) = a / S * b / (S - a): the set {0, 1} of weights 1, 2, 3, against that sum."""
    weights = [1, 2, 3]
    both = 0
    for seed in range(2000):
        both += ids(records(3, w=lambda i: weights[i]), count=2, weight="w", seed=seed) == ["r0", "r1"]
    expected = 1 / 6 * 2 / 5 + 2 / 6 * 1 / 4
    assert abs(both - 2000 * expected) < 5 * (2000 * expected * (1 - expected)) ** 0.5


def test_the_smallest_weight_is_drawn_in_the_end_and_none_never() -> None:
    given = [Record({"id": f"r{i}", "w": w}) for i, w in enumerate([5e-324, 0, 1, 1e308])]
    assert ids(given, count=3, weight="w") == ["r0", "r2", "r3"] == ids(given, count=4, weight="w")
    assert ids(given, count=2, weight="w") == ["r2", "r3"]


@pytest.mark.parametrize("weight", [-1, "2", True, None, 10**400])
def test_a_weight_is_a_number_from_0(weight: Any) -> None:
    with pytest.raises(RecordError) as caught:
        ids(records(3, w=weight), count=1, weight="w")
    assert caught.value.kind == ("missing-field" if weight is None else "bad-weight")


def test_records_without_the_stratum_are_one_and_are_told() -> None:
    given = records(8, label=lambda i: "x" if i < 4 else None)
    stage = SampleExact({"per": 1, "stratify": "label"})
    assert len(list(run(stage, given))) == 2
    assert stage.notices == ["records without 'label' are one stratum: 4"]
    with pytest.raises(UsageError, match="no record has a field 'lable'"):
        ids(given, per=1, stratify="lable")


def test_records_without_an_id_are_drawn_by_their_line() -> None:
    given = [Record.parse(b'{"x":%d}' % (i % 30)) for i in range(60)]
    kept = [r.encode() for r in run(Sample({"fraction": 0.5, "seed": 0}), given)]
    assert set(Counter(kept).values()) == {2} and 5 < len(set(kept)) < 25
    random.Random(0).shuffle(given)
    exact = sorted(r.encode() for r in run(SampleExact({"count": 20}), given))
    assert exact == sorted(r.encode() for r in run(SampleExact({"count": 20}), given[::-1])) and len(exact) == 20


def test_parts_of_the_input_give_parts_of_the_sample(clipkit: Any, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(r.encode() + b"\n" for r in records(100)))
    whole = clipkit("sample", path, "--fraction", "0.4").lines
    parts = [clipkit("sample", path, "--fraction", "0.4", "--shard", f"{i}/3").lines for i in (1, 2, 3)]
    assert sorted(sum(parts, [])) == sorted(whole)
    refused = clipkit("sample", path, "-n", "4", "--shard", "1/3")
    assert refused.code == 2 and "--shard" in refused.stderr
