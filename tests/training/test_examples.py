"""Examples of records: each once in an epoch, in an order by hash, from any place on, shared among processes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.errors import RecordError
from clipkit.images.opener import Opener
from clipkit.stream.captions import Caption
from clipkit.stream.record import Record
from clipkit.stream.spool import Rows
from clipkit.training.examples import Example, RecordExamples, row_of

_open: list[Rows] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _open:
        _open.pop().close()


def new_rows() -> Rows:
    _open.append(Rows())
    return _open[-1]


def examples(names: list[str], seed: int = 0) -> RecordExamples:
    rows = new_rows()
    for name in names:
        record = Record({"id": name, "image": f"{name}.png", "text": f"a {name}"})
        rows.append(name, row_of(record))
    return RecordExamples(rows, Opener(), seed)


def names(found: list[tuple[int, int, Example]]) -> list[str]:
    return [example.name for _, _, example in found]


NAMES = [f"n{number}" for number in range(50)]


def test_an_epoch_has_every_example_once_and_the_next_another_order() -> None:
    walked = list(islice(examples(NAMES).walk(0, 0, 1), 150))
    assert [position for position, _, _ in walked] == list(range(150))
    assert [epoch for _, epoch, _ in walked] == [0] * 50 + [1] * 50 + [2] * 50
    epochs = [names(walked[start : start + 50]) for start in (0, 50, 100)]
    assert all(sorted(epoch) == sorted(NAMES) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != NAMES


def test_an_order_hangs_on_seed_and_names_alone() -> None:
    plain = names(list(islice(examples(NAMES).walk(0, 0, 1), 120)))
    assert names(list(islice(examples(NAMES[::-1]).walk(0, 0, 1), 120))) == plain
    assert names(list(islice(examples(NAMES, seed=1).walk(0, 0, 1), 120))) != plain


def test_examples_that_are_left_out_do_not_change_the_order_of_the_others() -> None:
    some = set(NAMES[::3])
    plain = names(list(islice(examples(NAMES).walk(0, 0, 1), 50)))
    assert names(list(islice(examples(NAMES[::3]).walk(0, 0, 1), 17))) == [name for name in plain if name in some]


@given(first=st.integers(0, 170), world=st.sampled_from([1, 2, 3, 4, 7, 60]))
def test_from_any_position_on_it_goes_as_it_would_have_gone(first: int, world: int) -> None:
    made = examples(NAMES)
    whole = list(islice(made.walk(0, 0, 1), 240))
    for rank in range(min(world, 5)):
        expected = [each for each in whole if each[0] >= first and each[0] % world == rank]
        assert list(islice(made.walk(first, rank, world), len(expected))) == expected


@pytest.mark.parametrize("world", [2, 3, 4, 6, 12])
def test_a_step_has_the_same_examples_whatever_the_number_of_processes(world: int) -> None:
    made, batch = examples(NAMES), 12
    alone = made.walk(0, 0, 1)
    ranks = [made.walk(0, rank, world) for rank in range(world)]
    for _ in range(9):
        together = [each for walk in ranks for each in islice(walk, batch // world)]
        assert {example.name for _, _, example in together} == set(names(list(islice(alone, batch))))


def test_two_places_next_to_each_other_are_not_so_again() -> None:
    made = examples([f"n{number}" for number in range(2000)])
    epochs = [names(list(islice(made.walk(start, 0, 1), 2000))) for start in (0, 2000)]
    pairs = [{frozenset(pair) for pair in pairwise(epoch)} for epoch in epochs]
    assert len(pairs[0] & pairs[1]) < 15  # about 2 of 2000 by chance
    places = [np.argsort(np.argsort(epoch)) for epoch in epochs]
    assert abs(np.corrcoef(*places)[0, 1]) < 0.12


def test_the_digest_is_of_all_of_it() -> None:
    assert examples(NAMES).digest == examples(NAMES).digest
    assert len({examples(NAMES).digest, examples(NAMES[1:]).digest, examples(["x", *NAMES[1:]]).digest}) == 3


def test_the_caption_in_use_is_first_and_what_is_not_true_apart() -> None:
    texts = ["old", {"text": "new", "source": "coca"}, {"text": "wrong", "negative": True}]
    rows = new_rows()
    record = Record.parse(json.dumps({"image": "a.png", "text": "new", "texts": texts}).encode())
    rows.append("", row_of(record))
    (_, _, example), *_ = islice(RecordExamples(rows, Opener(), 0).walk(0, 0, 1), 1)
    assert example.captions == [Caption("new", "coca"), Caption("old")]
    assert [caption.text for caption in example.negatives] == ["wrong"]
    assert example.name == record.digest.hex()  # it has no id


def test_what_img2dataset_calls_a_caption_is_one_where_nothing_else_is() -> None:
    from clipkit.training.examples import captions_of

    record = Record({"image": "a.png", "caption": "a dog"})
    assert captions_of(record) == ([Caption("a dog", "original")], [])
    assert captions_of(Record({"caption": "printed", "text": "alt"}))[0] == [Caption("alt", "original")]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"image": "a.png"}, "missing-text"),
        ({"image": "a.png", "text": " "}, "missing-text"),
        ({"image": "a.png", "texts": [{"text": "x", "negative": True}]}, "missing-text"),
        ({"text": "x"}, "bad-field"),
        ({"image": "a.png", "texts": "x"}, "bad-texts"),
    ],
)
def test_what_is_no_example_says_why(fields: dict[str, object], kind: str) -> None:
    with pytest.raises(RecordError) as caught:
        row_of(Record(fields))
    assert caught.value.kind == kind
