"""What is read out of answers, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.errors import RecordError
from clipkit.prompts import answers, recipes
from clipkit.stream.captions import Caption, cleaned

LACLIP, HQ, DREAM = (recipes.load(name) for name in ("laclip", "hq-clip", "dreamlip"))
FOUR = {
    "description": "A dog runs.\n On sand.",
    "tags": ["dog", "sand", "dog"],
    "false_description": "A cat sleeps.",
    "false_tags": ["cat", "bed"],
}
READ = [
    Caption("A dog runs. On sand.", "hq-clip/long", "m", 7),
    Caption("dog, sand", "hq-clip/tags", "m", 7),
    Caption("A cat sleeps.", "hq-clip/negative-long", "m", 7, negative=True),
    Caption("cat, bed", "hq-clip/negative-tags", "m", 7, negative=True),
]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("A cat.", "A cat."),
        (" \n A cat.\n", "A cat."),
        ("A\x1b[31m  cat.\x00", "A [31m cat."),
        ('"A cat."', "A cat."),
        ("“A cat.”", "A cat."),
        ("' A cat. '", "A cat."),
        ('"A cat" and "a dog"', '"A cat" and "a dog"'),
        ("'tis a cat'", "tis a cat"),
        ('"A cat', '"A cat'),
        ("Caption: a cat", "Caption: a cat"),  # nothing is guessed
    ],
)
def test_a_plain_answer(answer: str, text: str) -> None:
    assert answers.read(LACLIP, answer, 1, model="m", seed=3) == [Caption(text, "laclip/2", "m", 3)]


def test_sources() -> None:
    assert answers.read(recipes.load("veclip"), "A cat.")[0].source == "veclip"
    assert [caption.source for caption in answers.read(LACLIP, "A cat.", 3)] == ["laclip/4"]


@pytest.mark.parametrize(
    "around", ["{}", " {}\n", "```json\n{}\n```", "```\n{}```\nI hope this helps!", "{} That is all. {{}}"]
)
def test_json_in_a_fence_and_before_other_text(around: str) -> None:
    assert answers.read(HQ, around.format(json.dumps(FOUR)), model="m", seed=7) == READ


BAD_PLAIN = [
    ("", "empty"),
    (' "" ', None),
    ("Here it is:\nA cat.", "several lines where one caption is expected: 'Here it is:\\nA cat.'"),
    ("x" * 9000, "9,000 characters, more than 8,000"),
    ("\ud800", "half a character"),
]


@pytest.mark.parametrize(("answer", "said"), BAD_PLAIN)
def test_a_plain_answer_that_is_refused(answer: str, said: str | None) -> None:
    if said is None:
        assert answers.read(LACLIP, answer)[0].text == '""'
        return
    with pytest.raises(RecordError) as caught:
        answers.read(LACLIP, answer)
    assert caught.value.kind == "bad-answer"
    assert said in caught.value.message


BAD_JSON: list[tuple[Any, str]] = [
    ("I can't help with that.", "not JSON"),
    ("Sure! " + json.dumps(FOUR), "not JSON"),
    (json.dumps(FOUR)[:-9], "not JSON"),
    ("[" * 100_000, "not JSON"),
    ('{"a": 1, "a": 2}', "a field is there twice"),
    ([FOUR], "a list, not a JSON object"),
    ("null", "null, not a JSON object"),
    ({}, "no field 'description'; it has none"),
    (FOUR | {"tags": None}, "'tags' is null, not a list"),
    (FOUR | {"tags": "dog, sand"}, "'tags' is a text, not a list"),
    (FOUR | {"tags": []}, "'tags' has 0 texts"),
    (FOUR | {"tags": ["x"] * 101}, "'tags' has 101 texts"),
    (FOUR | {"tags": ["dog", " "]}, "an entry of 'tags' is empty"),
    (FOUR | {"tags": ["dog", 3]}, "an entry of 'tags' is a number, not a text"),
    (FOUR | {"description": ["A dog."]}, "'description' is a list, not a text"),
    (FOUR | {"description": True}, "'description' is a truth value, not a text"),
    (FOUR | {"description": "  "}, "'description' is empty"),
    (FOUR | {"description": "x" * 8001}, "'description' has 8,001 characters"),
    (FOUR | {"description": "\ud800"}, "'description' holds half a character"),
    ({name: value for name, value in FOUR.items() if name != "false_tags"}, "no field 'false_tags'; it has"),
]


@pytest.mark.parametrize(("answer", "said"), BAD_JSON)
def test_json_that_is_refused(answer: Any, said: str) -> None:
    with pytest.raises(RecordError) as caught:
        answers.read(HQ, answer if isinstance(answer, str) else json.dumps(answer))
    assert caught.value.kind == "bad-answer"
    assert said in caught.value.message
    assert len(caught.value.message) < 300


def test_more_fields_than_were_asked_for_do_no_harm() -> None:
    assert answers.read(HQ, json.dumps(FOUR | {"note": [1]}), model="m", seed=7) == READ


def test_sentences() -> None:
    captions = answers.read(DREAM, "A dog runs on sand. The sea is behind it.\n\nIts collar is red.", model="m")
    assert [caption.text for caption in captions] == [
        "A dog runs on sand.",
        "The sea is behind it.",
        "Its collar is red.",
    ]
    assert {caption.source for caption in captions} == {"dreamlip"}
    with pytest.raises(RecordError, match="no sentence in it"):
        answers.read(DREAM, "1. 2. 3.")


@given(st.text(max_size=80), st.sampled_from(["laclip", "hq-clip", "dreamlip", "description"]))
def test_any_answer_gives_captions_or_a_records_error(answer: str, name: str) -> None:
    try:
        found = answers.read(recipes.load(name), answer)
    except RecordError as error:
        assert error.kind == "bad-answer"
        return
    assert found
    for caption in found:
        assert caption.text == caption.text.strip() != ""
        assert "\n" not in caption.text


@given(
    st.fixed_dictionaries(
        {
            "description": st.text(max_size=9),
            "tags": st.lists(st.text(max_size=4), max_size=4),
            "false_description": st.text(min_size=1, max_size=9),
            "false_tags": st.lists(st.text("ab", min_size=1), min_size=1, max_size=4),
        }
    )
)
def test_json_of_the_right_form_is_read_unless_it_is_empty(values: dict[str, Any]) -> None:
    texts = [values["description"], values["false_description"], *values["tags"], *values["false_tags"]]
    full = bool(values["tags"]) and all(map(cleaned, texts))
    try:
        assert len(answers.read(HQ, json.dumps(values))) == 4
        assert full
    except RecordError:
        assert not full
