"""Records found by key on disk, whatever their hashes do."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.errors import ClipkitError, RecordError
from clipkit.stream import lookup
from clipkit.stream.lookup import Lookup
from clipkit.stream.record import Record
from clipkit.stream.sources import BadLine


def key(record: Record) -> bytes | None:
    value = record.get("k")
    return None if value is None else str(value).encode()


def records(values: Iterable[Any]) -> list[Record]:
    return [Record.parse(json.dumps({"k": value, "n": n}).encode(), f"f:{n}") for n, value in enumerate(values)]


@pytest.mark.parametrize("word", [lookup._WORD, 7, 0])  # with all hashes, with eight, with one
@settings(max_examples=25, deadline=None)
@given(held=st.lists(st.text(max_size=3), unique=True, max_size=30), asked=st.lists(st.text(max_size=3), max_size=10))
def test_finds_what_a_dict_finds(word: int, held: list[str], asked: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "_WORD", word)
        found = Lookup(records(held), key)
        expected = {name: n for n, name in enumerate(held)}
        for name in [*held[::-1], *asked]:
            record = found.find(name.encode())
            assert (record and record["n"]) == expected.get(name)
        assert len(found) == found.found == len(held)
        found.close()


@pytest.mark.parametrize("word", [lookup._WORD, 0])
def test_two_records_of_one_key_are_named_both(word: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "_WORD", word)
    with pytest.raises(ClipkitError, match="f:3: b is also that of f:1") as caught:
        Lookup(records(["a", "b", "c", "b"]), key)
    assert caught.value.hint


def test_what_cannot_be_found_is_counted() -> None:
    failed = Record.parse(b'{"k":"z","error":{"type":"x"}}')
    found = Lookup([*records(["a", None]), failed], key)
    assert (len(found), found.unkeyed, found.failed, found.found) == (1, 1, 1, 0)
    assert found.find(b"z") is None and found.find(b"a") is not None and found.found == 1
    found.close()


def test_a_found_record_is_fresh_and_has_its_bytes() -> None:
    found = Lookup([Record.parse(b'{"k":"a", "f":1.10}', "f:1")], key)
    first = found.find(b"a")
    assert first is not None
    first["k"] = "changed"
    again = found.find(b"a")
    assert again is not None and again.line == b'{"k":"a", "f":1.10}' and again.where == "f:1"
    found.close()


def test_a_line_that_is_no_record_stops_it_with_its_place() -> None:
    bad = BadLine("f:2", b"{", RecordError("bad-json", "not JSON: it ends"), "f", b"d" * 16)
    with pytest.raises(ClipkitError, match="f:2: not JSON"):
        Lookup([*records(["a"]), bad], key)
