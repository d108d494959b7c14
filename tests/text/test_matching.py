"""Aho-Corasick against `in`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clipkit.text.matching import Matcher

# few letters, so that patterns overlap and are found; of one to four bytes, and one that combines
LETTERS = st.text(alphabet="ab \u00e9e\u0301\u732b\U0001f600\0", max_size=12)
ANY = st.text(max_size=30)


def naive(patterns: list[tuple[str, int]], text: str) -> set[int]:
    return {number for pattern, number in patterns if pattern and pattern in text}


@given(st.lists(st.tuples(LETTERS, st.integers(0, 5)), max_size=12), LETTERS)
def test_it_finds_what_a_scan_finds(patterns: list[tuple[str, int]], text: str) -> None:
    assert Matcher(patterns).find(text) == naive(patterns, text)


@given(ANY, st.lists(st.tuples(st.integers(0, 29), st.integers(1, 5)), max_size=8), st.lists(ANY, max_size=3))
def test_it_finds_pieces_of_any_text(text: str, pieces: list[tuple[int, int]], others: list[str]) -> None:
    patterns = [(text[start : start + length], n) for n, (start, length) in enumerate(pieces)]
    patterns += [(other, len(patterns) + n) for n, other in enumerate(others)]
    assert Matcher(patterns).find(text) == naive(patterns, text)


def test_a_pattern_within_another_and_one_text_of_several_numbers() -> None:
    matcher = Matcher([(" red ", 0), (" red panda ", 1), (" panda ", 2), (" panda ", 3), (" panda ", 3), (" anda", 4)])
    assert matcher.find(" a red panda ") == {0, 1, 2, 3}
    assert matcher.find(" a pandas ") == set()


def test_without_patterns_nothing_is_found() -> None:
    assert Matcher([]).find("a") == Matcher([("", 1)]).find("a") == set()
