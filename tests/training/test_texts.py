"""Which captions are shown: by weight, by hash, and nothing else."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.errors import RecordError, UsageError
from clipkit.stream.captions import Caption
from clipkit.training.examples import Example
from clipkit.training.settings import Settings
from clipkit.training.texts import Texts

LACLIP = [Caption("one dog", "original"), *(Caption(f"rewrite number {n}", f"laclip/{n}") for n in range(4))]


def example(name: str, captions: Sequence[Caption], negatives: Sequence[Caption] = ()) -> Example:
    return Example(name, captions, negatives, b"")


def counted(texts: Texts, captions: Sequence[Caption], draws: int = 4000) -> Counter[str]:
    """How often each caption is the first one, over names and epochs."""
    return Counter(texts.shown(example(f"n{n % 100}", captions), n // 100).texts[0] for n in range(draws))


def fits(count: int, share: float, draws: int) -> bool:
    """Within five standard deviations of the binomial distribution."""
    return abs(count - share * draws) <= 5 * math.sqrt(draws * share * (1 - share)) + 1e-9


def test_without_weights_the_caption_in_use_is_shown() -> None:
    assert counted(Texts(Settings()), LACLIP, 200) == {"one dog": 200}


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ({"original": 1, "laclip": 4}, [0.2] * 5),  # LaCLIP: evenly among all
        ({"original": 1, "laclip": 1}, [0.5] + [0.125] * 4),  # VeCLIP: one or the other
        ({"original": 1, "laclip/2": 3}, [0.25, 0, 0, 0.75, 0]),
        ({"laclip": 1, "laclip/0": 1}, [0, 0.5] + [1 / 6] * 3),  # the longest name counts, the rest share
        ({"original": 1, "laclip": 0}, [1, 0, 0, 0, 0]),
        ({"original": 1, "lac": 5}, [1, 0, 0, 0, 0]),  # `lac` is no part of `laclip/0` that ends before a slash
    ],
)
def test_captions_come_as_often_as_weights_say(weights: dict[str, float], shares: list[float]) -> None:
    found = counted(Texts(Settings(weights=weights)), LACLIP)
    for caption, share in zip(LACLIP, shares, strict=True):
        assert fits(found[caption.text], share, 4000), (caption, found)


def test_what_nobody_else_wrote_is_original() -> None:
    """As COCO's records have it, and after a captioner; a model's caption without a source is of no name."""
    people = [Caption("a dog lies there"), Caption("a brown dog"), Caption("dog")]
    captions = [*people, Caption("the dog of a model", "coca", "coca@1"), Caption("another model's", model="it@2")]
    found = counted(Texts(Settings(weights={"original": 1, "coca": 1})), captions)
    for caption in people:
        assert fits(found[caption.text], 1 / 6, 4000), found
    assert fits(found["the dog of a model"], 0.5, 4000) and not found["another model's"]
    spoken = Texts(Settings(prefixes={"original": "people say:"})).shown(example("n", captions), 0).spoken
    assert spoken == ["people say: a dog lies there"]


def test_weights_count_among_the_sources_that_an_example_has() -> None:
    texts = Texts(Settings(weights={"original": 1, "laclip": 4, "coca": 100}))
    found = counted(texts, LACLIP[:2])
    assert fits(found["one dog"], 0.2, 4000)


def test_a_rewrite_of_one_word_gives_way_to_the_original() -> None:
    captions = [Caption("dog", "original"), Caption("Sure!", "laclip/0"), Caption("一只狗在草地上", "laclip/1")]
    found = counted(Texts(Settings(weights={"original": 1, "laclip": 2})), captions)
    assert set(found) == {"dog", "一只狗在草地上"}
    assert fits(found["dog"], 2 / 3, 4000)


def test_an_original_that_stands_for_several_rewrites_is_shown_once() -> None:
    captions = [Caption("dog", "original"), Caption("Sure!", "laclip/0"), Caption("Yes.", "laclip/1")]
    texts = Texts(Settings(weights={"original": 1, "laclip": 2}), many=3)
    assert all(texts.shown(example("a", captions), epoch).texts == ["dog"] for epoch in range(20))


def test_an_original_of_one_word_is_shown() -> None:
    assert Texts(Settings(weights={"original": 1})).shown(example("a", [Caption("dog", "original")]), 0).texts == [
        "dog"
    ]


def test_nothing_to_show_is_the_examples_fault() -> None:
    texts = Texts(Settings(weights={"coca": 1}))
    for captions in (LACLIP, LACLIP[:1]):
        with pytest.raises(RecordError) as caught:
            texts.shown(example("a", captions), 0)
        assert caught.value.kind == "missing-text"


@pytest.mark.parametrize("weights", [{"a": -1.0}, {"a": math.nan}, {"a": math.inf}, {"a": 0.0, "b": 0.0}])
def test_weights_that_nothing_can_be_drawn_by_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        Texts(Settings(weights=weights))


def test_several_captions_are_all_different_and_the_one_in_use_is_first() -> None:
    for epoch in range(50):
        shown = Texts(Settings(), many=3).shown(example("a", LACLIP), epoch).texts
        assert shown[0] == "one dog" and len(set(shown)) == 3
    assert len(Texts(Settings(), many=9).shown(example("a", LACLIP), 0).texts) == 5


def test_of_several_without_weights_each_is_shown_as_often() -> None:
    texts = Texts(Settings(), many=3)
    found = Counter(text for epoch in range(2000) for text in texts.shown(example("a", LACLIP), epoch).texts[1:])
    assert all(fits(count, 0.5, 2000) for count in found.values()) and len(found) == 4


def test_several_are_drawn_one_after_the_other_by_weight() -> None:
    """Of weights 1, 2 and 3 the pair is as of an urn: P(a, b) = w_a / 6 * w_b / (6 - w_a)."""
    captions = [Caption(f"caption of {source}", source) for source in "abc"]
    texts = Texts(Settings(weights={"a": 1, "b": 2, "c": 3}), many=2)
    found = Counter(tuple(text[-1] for text in texts.shown(example(f"n{n}", captions), 0).texts) for n in range(6000))
    weight = {"a": 1, "b": 2, "c": 3}
    for first in "abc":
        for second in set("abc") - {first}:
            assert fits(found[first, second], weight[first] / 6 * weight[second] / (6 - weight[first]), 6000)


def test_words_of_the_source_stand_before_what_the_model_reads_alone() -> None:
    settings = Settings(weights={"laclip": 1}, prefixes={"laclip": "a rewrite:", "laclip/3": "the last:"})
    texts = Texts(settings)
    for epoch in range(20):
        shown = texts.shown(example("a", LACLIP), epoch)
        words = "the last:" if shown.texts == ["rewrite number 3"] else "a rewrite:"
        assert shown.spoken == [f"{words} {shown.texts[0]}"]
    assert Texts(Settings(prefixes={"coca": "x"})).shown(example("a", LACLIP), 0).spoken == ["one dog"]


def test_negatives_are_drawn_among_themselves() -> None:
    wrong = [Caption(f"no {n}", "hq-clip/negative", negative=True) for n in range(3)]
    texts = Texts(Settings(), negatives=2)
    found = Counter(text for epoch in range(1500) for text in texts.shown(example("a", LACLIP, wrong), epoch).negatives)
    assert all(fits(found[caption.text], 2 / 3, 1500) for caption in wrong)
    assert texts.shown(example("a", LACLIP), 0).negatives == []


@given(st.permutations(range(12)), st.integers(0, 3))
def test_what_is_shown_hangs_on_name_seed_and_epoch_alone(order: list[int], epoch: int) -> None:
    settings = Settings(weights={"original": 1, "laclip": 4}, seed=3)
    alone = {n: Texts(settings, many=2).shown(example(f"n{n}", LACLIP), epoch) for n in range(12)}
    texts = Texts(settings, many=2)
    assert {n: texts.shown(example(f"n{n}", LACLIP), epoch) for n in order} == alone


def test_the_first_of_several_is_the_one_that_is_drawn_alone() -> None:
    settings = Settings(weights={"original": 1, "laclip": 4})
    one, many = Texts(settings), Texts(settings, many=4)
    assert all(
        one.shown(example("a", LACLIP), e).texts[0] == many.shown(example("a", LACLIP), e).texts[0] for e in range(50)
    )
