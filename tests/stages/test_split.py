"""split: disjoint and complete, in proportion, and nothing moves that has been placed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.api import run
from clipkit.errors import RecordError, UsageError
from clipkit.stages.split import Split, SplitStratified, parse_ratios, seats_of
from clipkit.stream.hashing import share
from clipkit.stream.record import Record

RATIOS = parse_ratios("train=0.8,val=0.1,test=0.1")


def records(count: int, **fields: Any) -> list[Record]:
    made = ({"id": f"r{i}"} | {k: v(i) if callable(v) else v for k, v in fields.items()} for i in range(count))
    return [Record.parse(json.dumps(each).encode(), f"f:{i}") for i, each in enumerate(made)]


def splits(given: list[Record], kind: type[Split | SplitStratified] = Split, **config: Any) -> dict[str, str]:
    return {str(r.id): r["split"] for r in run(kind({"ratios": RATIOS, **config}), [r.copy() for r in given])}


def test_a_record_goes_where_its_share_falls() -> None:
    for name, split in splits(records(1000), seed=3).items():
        drawn = share(name, 3, "split")
        assert split == ("train" if drawn < 0.8 else "val" if drawn < 0.9 else "test")
    found = Counter(splits(records(3000)).values())
    assert abs(found["train"] - 2400) < 110 and abs(found["val"] - 300) < 83 and abs(found["test"] - 300) < 83


@given(st.permutations(range(40)), st.integers(0, 40))
def test_adding_records_or_another_order_moves_none(order: list[int], some: int) -> None:
    given = records(40)
    whole = splits(given)
    part = splits([given[i] for i in order[:some]])
    assert part == {name: whole[name] for name in part}


def test_groups_never_straddle_and_follow_their_value_alone() -> None:
    given = records(600, album=lambda i: f"album {i % 90}" if i % 2 else i % 90)
    found = defaultdict(set)
    for name, split in splits(given, group="album").items():
        found[str(int(name[1:]) % 90)].add(split)
    assert all(len(each) == 1 for each in found.values()) and len({*map(tuple, found.values())}) == 3
    some = splits(given[:50], group="album")
    assert some.items() <= splits(given, group="album").items()


def test_one_group_in_two_spellings_is_one() -> None:
    given = records(40, g=lambda i: i // 2 if i % 2 else float(i // 2)) + records(2, g=lambda i: ["é", "e\u0301"][i])
    for number, record in enumerate(given):
        record["id"] = f"n{number}"
    found = list(splits(given, group="g", ratios=parse_ratios("train=0.5,test=0.5")).values())
    assert found[::2] == found[1::2] and len(set(found)) == 2


def test_a_record_without_its_group_is_an_error_with_a_hint() -> None:
    with pytest.raises(RecordError, match="no field 'albun'") as caught:
        splits(records(2, album="x"), group="albun")
    assert caught.value.hint == "did you mean 'album'?"


RATIO_SETS = st.lists(st.integers(0, 5), min_size=2, max_size=3).filter(sum)
SIZES = st.lists(st.integers(1, 30), max_size=12)


@given(SIZES, RATIO_SETS)
def test_every_class_and_the_whole_are_within_a_record_of_their_proportion(sizes: list[int], parts: list[int]) -> None:
    ratios = [Fraction(part, sum(parts)) for part in parts]
    seats = seats_of(sizes, ratios)
    for size, row in zip(sizes, seats, strict=True):
        assert sum(row) == size and min(row) >= 0
        for got, ratio in zip(row, ratios, strict=True):
            assert abs(got - ratio * size) < 2 and (ratio or not got)
    for split, ratio in enumerate(ratios):
        assert abs(sum(row[split] for row in seats) - ratio * sum(sizes)) <= 1


@given(st.lists(st.integers(1, 5).map(lambda n: 10 * n), max_size=8))
def test_whole_proportions_are_exact(sizes: list[int]) -> None:
    ratios = [Fraction(8, 10), Fraction(1, 10), Fraction(1, 10)]
    assert seats_of(sizes, ratios) == [[size * 8 // 10, size // 10, size // 10] for size in sizes]


def test_many_small_classes_fill_every_split() -> None:
    """Rounding each class alone would put every class of 2 into train alone."""
    seats = seats_of([2] * 100, [Fraction(8, 10), Fraction(1, 10), Fraction(1, 10)])
    assert [sum(row[i] for row in seats) for i in range(3)] == [160, 20, 20]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.randoms())
def test_stratified_is_complete_and_independent_of_order(labels: list[str], pick: Any) -> None:
    given = records(len(labels), label=lambda i: labels[i])
    found = splits(given, SplitStratified, stratify="label")
    assert set(found) == {r.id for r in given}
    shuffled = given[:]
    pick.shuffle(shuffled)
    assert splits(shuffled, SplitStratified, stratify="label") == found
    for label in set(labels):  # by share: train has the smallest, as without classes
        order = sorted(
            (share(name, 0, "split"), split) for name, split in found.items() if labels[int(name[1:])] == label
        )
        assert [split for _, split in order] == sorted(
            (split for _, split in order), key=["train", "val", "test"].index
        )


def test_stratified_says_what_it_lacks() -> None:
    stage = SplitStratified({"ratios": RATIOS, "stratify": "label"})
    list(run(stage, records(10, label=lambda i: "x" if i else None)))
    assert stage.notices == ["records without 'label' are one class: 1"]
    with pytest.raises(UsageError, match="no record has a field 'lable'"):
        splits(records(3, label="x"), SplitStratified, stratify="lable")


@pytest.mark.parametrize("kind", [Split, SplitStratified])
def test_a_record_in_use_is_not_moved_silently(kind: type[Split | SplitStratified]) -> None:
    given = records(60, label="x")
    once = list(run(kind({"ratios": RATIOS}), [r.copy() for r in given]))
    lines = [r.encode() for r in once]
    again = list(run(kind({"ratios": RATIOS}), [Record.parse(line) for line in lines]))
    assert [r.line for r in again] == lines  # untouched
    other = [Record.parse(line) for line in lines]
    out = list(run(kind({"ratios": RATIOS, "seed": 1}), other, on_error="keep"))
    assert {r["split"] for r in out if r.get("error")} and all(
        r["split"] == o["split"] for r, o in zip(out, once, strict=True)
    )
    moved = list(run(kind({"ratios": RATIOS, "seed": 1, "overwrite": True}), [Record.parse(line) for line in lines]))
    fresh = list(run(kind({"ratios": RATIOS, "seed": 1}), [r.copy() for r in given]))
    assert [r["split"] for r in moved] == [r["split"] for r in fresh]
    assert all(m["via"]["split"].endswith("@1") for m, o in zip(moved, once, strict=True) if m["split"] != o["split"])


@pytest.mark.parametrize(
    "text",
    [
        "train=0.8",
        "train=0.5,train=0.5",
        "dev=1",
        "train=x,test=1",
        "train=1.5,test=-0.5",
        "train",
        "train=1/0",
        "train=nan",
        "train=1e-999999999,test=1",
        "train=0.8000001,test=0.2",
    ],
)
def test_ratios_that_cannot_be(text: str) -> None:
    with pytest.raises(UsageError, match="--ratios"):
        parse_ratios(text)


def test_ratios_are_decimal() -> None:
    assert parse_ratios("train=0.7, val=0.2,test=0.1") == {"train": "0.7", "val": "0.2", "test": "0.1"}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"".join(r.encode() + b"\n" for r in records(200, label=lambda i: "xy"[i % 2])))
    return path


def test_parts_of_the_input_give_parts_of_the_split(clipkit: Any, manifest: Path) -> None:
    whole = clipkit("split", manifest).lines
    parts = [clipkit("split", manifest, "--shard", f"{i}/3").lines for i in (1, 2, 3)]
    assert sorted(sum(parts, [])) == sorted(whole)


@pytest.mark.parametrize("more", [[], ["--stratify", "label"]])
def test_a_folder_gets_all_its_files_and_every_record_once(
    clipkit: Any, manifest: Path, tmp_path: Path, more: list[str]
) -> None:
    error = '{"id":"e","error":{"verb":"x","type":"y","message":"z"}}'
    manifest.write_text(manifest.read_text() + error + "\n")
    whole = clipkit("split", manifest, *more).lines
    done = clipkit("split", manifest, "-o", "sets/", "--report", "r.json", *more)
    assert done.code == 0 and done.stdout == ""
    sets = {path.name: path.read_text().splitlines() for path in (tmp_path / "sets").iterdir()}
    assert set(sets) == {"train.jsonl", "val.jsonl", "test.jsonl", "errors.jsonl"}
    assert sets["errors.jsonl"] == [error]
    for name in ("train", "val", "test"):
        assert sets[f"{name}.jsonl"] == [line for line in whole if f'"split":"{name}"' in line] != []
    sizes = {name: len(sets[f"{name}.jsonl"]) for name in ("train", "val", "test")}
    assert json.loads((tmp_path / "r.json").read_text())["facts"] == {"splits": sizes}


def test_a_folder_again_forgets_the_errors_before_and_makes_empty_files(clipkit: Any, tmp_path: Path) -> None:
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets/errors.jsonl").write_text("{}\n")
    assert clipkit("split", "-", "-o", "sets", stdin='{"id":"a"}\n').code == 0
    sizes = {path.name: path.stat().st_size > 0 for path in (tmp_path / "sets").iterdir()}
    assert sizes == {"train.jsonl": True, "val.jsonl": False, "test.jsonl": False}


def test_a_folder_appears_whole_or_not_at_all(clipkit: Any, tmp_path: Path) -> None:
    failed = clipkit("split", "-", "-o", "sets/", stdin='{"id":"a"}\n{"id":\n')
    assert failed.code == 1 and not list((tmp_path / "sets").iterdir())
    assert clipkit("split", "-", "-o", "sets/", stdin='{"id":"a"}\n').code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "sets").iterdir()}
    assert clipkit("split", "-", "-o", "sets/", stdin='{"id":"b"}\n{"id":\n').code == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "sets").iterdir()} == before


def test_a_leftover_of_another_split_is_refused(clipkit: Any, tmp_path: Path) -> None:
    assert clipkit("split", "-", "-o", "sets/", stdin='{"id":"a"}\n').code == 0
    refused = clipkit("split", "-", "-o", "sets/", "--ratios", "train=0.5,test=0.5", stdin='{"id":"a"}\n')
    assert refused.code == 2 and "val.jsonl is there" in refused.stderr
    (tmp_path / "file.x").write_text("")
    assert clipkit("split", "-", "-o", "file.x/", stdin="").code == 2
    assert clipkit("split", "-", "-o", "no/where/", stdin="").code == 2
