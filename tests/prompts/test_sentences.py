"""Sentences, by the rule that is stated."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.prompts.sentences import split


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("A dog runs. It is brown.", ["A dog runs.", "It is brown."]),
        ("A dog runs", ["A dog runs"]),
        ("Is it a dog? Yes! Good…  Then it barks.", ["Is it a dog?", "Yes!", "Good…", "Then it barks."]),
        (
            "Dr. Smith meets J. R. Doe, e.g. on St. Helena. They talk.",
            ["Dr. Smith meets J. R. Doe, e.g. on St. Helena.", "They talk."],
        ),
        ("It is 3.5 m wide. It says v1.2.", ["It is 3.5 m wide.", "It says v1.2."]),
        ("The sign says “Stop.” A car waits.", ["The sign says “Stop.”", "A car waits."]),
        ("A cat (black.) It sits.", ["A cat (black.)", "It sits."]),
        ("Wait... what is it? a dog.", ["Wait... what is it? a dog."]),
        ("- a dog\n- a cat\n\n2. Sand", ["a dog", "a cat", "Sand"]),
        ("犬が走る。海が見える！ 本当？", ["犬が走る。", "海が見える！", "本当？"]),
        ("Plan B. Then on.", ["Plan B. Then on."]),  # as an initial would be: the rule is plain
        ("...\n1.\n!", []),
        ("", []),
    ],
)
def test_split(text: str, sentences: list[str]) -> None:
    assert split(text) == sentences


@given(
    st.lists(
        st.sampled_from(["A dog runs.", "Is it red?", "The sea is blue!", "Two birds fly over a roof."]), min_size=1
    )
)
def test_sentences_that_were_joined_come_apart_again(sentences: list[str]) -> None:
    assert split(" ".join(sentences)) == split("\n".join(sentences)) == sentences


@given(st.text("aB. !?\n'\"1)-", max_size=60))
def test_no_letter_is_lost(text: str) -> None:
    letters = [c for c in text if c.isalpha()]
    assert [c for sentence in split(text) for c in sentence if c.isalpha()] == letters
