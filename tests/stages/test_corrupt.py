"""corrupt: exactly the share that was asked for, the same in any order, nothing lost and nothing told."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.api import run
from clipkit.stages.corrupt import CorruptShuffle, CorruptWords, exchange, exchange_rows
from clipkit.stream.record import Record
from clipkit.stream.stage import Stage

texts = st.sampled_from(["a cat", "A  Cat", "a dog", "two cats", "snow", "the sea", "x"]) | st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Zs"]), min_size=1, max_size=9
)
shares = st.sampled_from([0, 0.1, 0.25, 0.5, 0.75, 1])


def plain(text: str) -> str:
    return " ".join(text.casefold().split())


def done(stage: Stage, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    records = [Record.parse(json.dumps(fields).encode(), f"f:{i}") for i, fields in enumerate(given)]
    return [record.to_dict() for record in run(stage, records, on_error="keep")]


def shuffled(given: list[dict[str, Any]], share: float, seed: int = 0) -> list[dict[str, Any]]:
    return done(CorruptShuffle({"share": share, "seed": seed}), given)


@given(st.lists(texts, max_size=30), shares, st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_shuffle(found: list[str], share: float, seed: int) -> None:
    given = [{"id": f"r{i}", "text": text, "n": 1.0} for i, text in enumerate(found)]
    out = shuffled(given, share, seed)
    assert Counter(r["text"] for r in out) == Counter(found)
    assert [r["id"] for r in out] == [r["id"] for r in given]
    for before, after in zip(given, out, strict=True):
        if "corrupted" in after:
            assert after["corrupted"] == {"by": "shuffle", "text": before["text"]}
            assert plain(after["text"]) != plain(before["text"])
        else:
            assert after == before
    back = shuffled(given[::-1], share, seed)
    if len(set(map(plain, found))) == len(found):  # of equal captions, which goes where is open
        assert back[::-1] == out


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_exchange_leaves_as_few_their_own_as_can_be(kinds: list[int]) -> None:
    given = exchange(kinds)
    assert sorted(given) == list(range(len(kinds)))
    own = sum(kinds[number] == kinds[source] for number, source in enumerate(given))
    assert own == max(0, 2 * max(Counter(kinds).values()) - len(kinds))
    assert exchange_rows(np.array(kinds)).tolist() == given


@pytest.mark.parametrize(("n", "share", "count"), [(10, 0.25, 3), (10, 0.24, 2), (7, 0.5, 4), (40, 0.3, 12), (9, 1, 9)])
def test_the_share_is_exact(n: int, share: float, count: int) -> None:
    given = [{"id": f"r{i}", "text": f"caption {i}"} for i in range(n)]
    assert sum("corrupted" in r for r in shuffled(given, share)) == count


def test_a_larger_share_contains_a_smaller_one_and_another_seed_draws_others() -> None:
    given = [{"id": f"r{i}", "text": f"caption {i}"} for i in range(60)]

    def drawn(share: float, seed: int = 0) -> set[str]:
        return {r["id"] for r in shuffled(given, share, seed) if "corrupted" in r}

    assert drawn(0.2) < drawn(0.4) < drawn(0.9)
    assert drawn(0.5) != drawn(0.5, seed=1)


def test_one_record_has_nobody_to_exchange_with() -> None:
    given = [{"id": "a", "text": "x"}, {"id": "b", "text": "y"}]
    assert shuffled(given, 0.5) == given


@given(st.lists(st.sampled_from(["a cat", "A cat", "a  CAT", "a dog", "snow"]), max_size=24), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_what_cannot_be_exchanged_takes_no_part(found: list[str], seed: int) -> None:
    given = [{"id": f"r{i}", "text": text, "texts": [text, f"more {i}"]} for i, text in enumerate(found)]
    out = shuffled(given, 1, seed)
    assert sorted((r["text"], r["texts"]) for r in out) == sorted((r["text"], r["texts"]) for r in given)
    largest = max(Counter(map(plain, found)).values(), default=0)
    assert sum("corrupted" not in r for r in out) == max(0, 2 * largest - len(found))
    assert all(before == after for before, after in zip(given, out, strict=True) if "corrupted" not in after)


def test_all_captions_go_together_and_none_comes_from_the_same_image() -> None:
    given = [
        {
            "id": f"{image}{i}",
            "image": f"{image}.jpg",
            "text": f"{image} {i}",
            "texts": [f"{image} {i}", f"{image} too"],
        }
        for image in "pqrs"
        for i in range(5)
    ]
    for seed in range(5):
        out = shuffled(given, 1, seed)
        assert sum("corrupted" in r for r in out) == len(given)
        for record in out:
            assert record["text"][0] != record["image"][0]
            assert record["texts"] == [record["text"], f"{record['text'][0]} too"]


def test_the_true_caption_is_nowhere_but_in_corrupted() -> None:
    given = [
        {"id": "a", "text": "a red fox", "texts": [{"text": "a red fox", "source": "original"}]},
        {"id": "b", "text": "a white hare"},
    ]
    a, b = shuffled(given, 1)
    assert "texts" not in a
    assert b["texts"] == [{"text": "a red fox", "source": "original"}]
    assert "fox" not in json.dumps({name: value for name, value in a.items() if name != "corrupted"})


def test_what_was_corrupted_stays_and_takes_no_part() -> None:
    given = [{"id": f"r{i}", "text": f"caption number {i}"} for i in range(20)]
    once = shuffled(given, 0.5)
    twice = shuffled(once, 1, seed=3)
    for before, after in zip(once, twice, strict=True):
        assert after["corrupted"]["by"] == "shuffle"
        if "corrupted" in before:
            assert after == before
    both = done(CorruptWords({"by": "drop-words", "share": 0.5}), once)
    assert Counter(r["corrupted"]["by"] for r in both) == {"shuffle": 10, "drop-words": 10}


def test_bytes_of_what_is_not_touched() -> None:
    lines = [
        b'{"id":"a", "text":"one","x":1.10}',
        b'{"id":"b","text":"  " }',
        b'{"id":"c","text":"t\\u0077o","texts":[{"text":"t\\u0077o","p":1.10}]}',
    ]
    out = list(run(CorruptShuffle({"share": 0}), [Record.parse(line) for line in lines]))
    assert [record.encode() for record in out] == lines
    out = list(run(CorruptShuffle({"share": 1}), [Record.parse(line) for line in lines]))
    assert out[1].encode() == lines[1]
    assert b'"x":1.10' in out[0].encode()
    assert b'"texts":[{"text":"t\\u0077o","p":1.10}]' in out[0].encode()


@given(st.lists(st.sampled_from("a b c d e f".split()), max_size=12), shares, st.integers(0, 3))  # noqa: SIM905
@settings(max_examples=100, deadline=None)
def test_words(words: list[str], share: float, seed: int) -> None:
    text = " ".join(words)
    given = [{"id": "r", "text": text}]
    (dropped,) = done(CorruptWords({"by": "drop-words", "share": share, "seed": seed}), given)
    (swapped,) = done(CorruptWords({"by": "swap-words", "share": share, "seed": seed}), given)
    count = math.floor(share * len(words) + 0.5)
    left = dropped["text"].split()
    assert len(left) == max(min(1, len(words)), len(words) - count)
    rest = iter(words)
    assert all(word in rest for word in left)  # those that are left are in their order
    assert Counter(swapped["text"].split()) == Counter(words)
    moved = sum(a != b for a, b in zip(words, swapped["text"].split(), strict=True))
    assert moved <= (max(count, 2) if count else 0)
    if len(set(words)) == len(words) > 1:
        assert moved == (max(count, 2) if count else 0)
    for out in (dropped, swapped):
        assert (out == given[0]) == (out["text"] == text)
        assert out.get("corrupted", {"text": text})["text"] == text


def test_words_of_all_captions_but_negative_ones() -> None:
    text, false = "a small dog on a red sofa", "a small cat on a red sofa"
    given = [{"id": "r", "text": text, "texts": [text, {"text": text, "p": 1}, {"text": false, "negative": True}]}]
    (out,) = done(CorruptWords({"by": "drop-words", "share": 0.5}), given)
    assert out["texts"] == [out["text"], {"text": out["text"], "p": 1}, {"text": false, "negative": True}]
    assert len(out["text"].split()) == 3  # of 7 words 4 are dropped: 3.5 is rounded up
    assert out["via"] == {"text": "corrupt/drop-words", "corrupted": "corrupt/drop-words"}


def test_what_cannot_be_said_of_a_record_is_its_error() -> None:
    given = [{"id": "a"}, {"id": "b", "text": 3}, {"id": "c", "text": "x", "texts": "y"}, {"id": "d", "text": "x y"}]
    for stage in (CorruptShuffle({"share": 1}), CorruptWords({"by": "swap-words", "share": 1})):
        kinds = [record.get("error", {}).get("type") for record in done(stage, given)]
        assert kinds == ["missing-field", "bad-field", "bad-texts", None]


def test_scores_of_the_true_caption_are_told() -> None:
    given = [{"id": "a", "text": "x", "scores": {"clip": 1}}, {"id": "b", "text": "y"}]
    stage = CorruptShuffle({"share": 1})
    done(stage, given)
    assert stage.notices == ["1 corrupted records have scores or emb.text from before, perhaps of the true caption"]
