"""Which entries a caption contains: the published rule, spelt out slowly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.errors import UsageError
from clipkit.methods.balancers.entries import Entries, load_entries, pattern, spaced

WORDS = st.text(alphabet="ab .,;:?!`'-\t\n\r\u00e9\u732b\u0e01\u3042", min_size=1, max_size=6)
CAPTIONS = st.text(alphabet="ab .,;:?!`'-\t\n\r\u00e9\u732b\u0e01\u3042", max_size=20)


def naive_spaced(text: str) -> str:
    """Character by character, where clipkit replaces in the whole."""
    out = []
    for character in text:
        if character in ",.;:?!`":
            out.append(f" {character} ")
        else:
            out.append(" " if character in "\t\n\r" else character)
    return " " + "".join(out) + " "


@given(st.lists(WORDS, max_size=8), CAPTIONS)
def test_an_entry_is_found_where_it_stands_between_spaces(words: list[str], caption: str) -> None:
    entries = Entries({"": words})
    found = {entries.names[number] for number in entries.find(caption)}
    assert found == {word for word in words if f" {word} " in naive_spaced(caption)}


@given(st.lists(WORDS, max_size=8), CAPTIONS)
def test_unspaced_scripts_need_no_space_on_their_side(words: list[str], caption: str) -> None:
    joining = set(".,;:?!`'-\u732b\u0e01\u3042")
    entries = Entries({"": words}, unspaced=True)
    found = {entries.names[number] for number in entries.find(caption)}
    sought = {w: ("" if w[0] in joining else " ") + w + ("" if w[-1] in joining else " ") for w in words}
    assert found == {word for word in words if sought[word] in naive_spaced(caption)}


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("a red panda, asleep", {"red panda", "panda"}),
        ("Panda", set()),  # case counts
        ("pandas", set()),
        ("'panda' (panda) panda's panda-like", set()),  # only these seven marks are set apart
        ("panda.", {"panda"}),
        ("red\tpanda", {"red panda", "panda"}),
        ("red  panda", {"panda"}),
        ("the U.S. flag", set()),  # its dots are set apart in the caption, not in the entry
        ("", set()),
    ],
)
def test_by_hand(caption: str, found: set[str]) -> None:
    entries = Entries({"": ["red panda", "panda", "U.S."]})
    assert {entries.names[number] for number in entries.find(caption)} == found


def test_both_spacing_rules_by_hand() -> None:
    assert pattern("cat", unspaced=True) == pattern("cat", unspaced=False) == " cat "
    assert pattern("\u732b", unspaced=False) == " \u732b "
    assert pattern("\u732b", unspaced=True) == "\u732b"
    assert pattern("T\u30b7\u30e3\u30c4", unspaced=True) == " T\u30b7\u30e3\u30c4"
    assert pattern("C++", unspaced=True) == " C++"
    assert pattern("\uc790\uc804\uac70", unspaced=True) == " \uc790\uc804\uac70 "  # Korean has spaces
    assert spaced("a,b") == " a , b "


def test_a_language_has_its_own_entries_and_all_others_the_common_ones() -> None:
    entries = Entries({"": ["cat", "chat"], "fr": ["chat"]})
    found = {language: {entries.names[n] for n in entries.find("cat chat", language)} for language in ("en", "fr", "")}
    assert found == {"en": {"cat", "chat"}, "fr": {"chat"}, "": {"cat", "chat"}}
    assert entries.number("chat", "fr") != entries.number("chat", "en") == entries.number("chat")
    assert Entries({"fr": ["chat"]}).find("chat", "en") == set()


def test_one_list_has_one_identity_in_any_order_and_another_has_another() -> None:
    same = [Entries({"": words}).digest for words in (["a", "b"], ["b", "a", "b"])]
    others = [Entries({"": ["a"]}), Entries({"": ["a", "b"]}, unspaced=True), Entries({"en": ["a", "b"]})]
    assert same[0] == same[1]
    assert len({same[0], *(other.digest for other in others)}) == 4


def test_files_as_people_write_them_and_as_metaclip_does(tmp_path: Path) -> None:
    text, listed = tmp_path / "entries.txt", tmp_path / "metadata.json"
    text.write_bytes(b"\xef\xbb\xbf# animals\r\ncat\r\n\r\n  red panda \r\ncat\n")
    listed.write_text(json.dumps(["red panda", "cat"]))
    assert load_entries({"": str(text)}).names == load_entries({"": str(listed)}).names == ["cat", "red panda"]
    assert load_entries({"": str(text)}).digest == load_entries({"": str(listed)}).digest


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("none.txt", None, "cannot be read"),
        ("empty.txt", b"# nothing\n\n", "no entries"),
        ("latin.txt", b"caf\xe9\n", "not UTF-8"),
        ("bad.json", b"[", "not JSON"),
        ("object.json", b"{}", "a list of strings"),
        ("numbers.json", b"[1]", "a list of strings"),
        ("nul.json", b'["a\\u0000b"]', "NUL"),
        ("half.json", b'["a", "\\ud800"]', "half a character"),
        ("nul.txt", b"a\0b\n", "NUL"),
    ],
)
def test_files_that_hold_no_entries(name: str, data: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UsageError, match=said) as raised:
        load_entries({"": str(path)})
    assert str(path) in str(raised.value)
