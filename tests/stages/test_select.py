"""set: what it changes, and all that it leaves alone."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.errors import RecordError, UsageError
from clipkit.stages.select import Cat, Set, parse_names, parse_renames, parse_values
from clipkit.stream.record import Record


def change(line: str, **config: Any) -> str:
    stage = Set({"rename": {}, "values": {}, "drop": [], "keep": [], **config})
    stage.setup()
    (outcome,) = stage.process([Record.parse(line.encode(), "f:1")])
    assert isinstance(outcome, Record)
    return outcome.encode().decode()


names = st.sampled_from("abcdef")
values = st.none() | st.integers(-5, 5) | st.text(max_size=3) | st.lists(st.booleans(), max_size=2)
objects = st.dictionaries(names, values)


@given(objects, st.lists(names, unique=True), objects, st.lists(names, unique=True))
def test_against_plain_dicts(
    fields: dict[str, Any], drop: list[str], assigned: dict[str, Any], keep: list[str]
) -> None:
    expected = {**fields, **assigned}
    expected = {name: value for name, value in expected.items() if name not in drop and (not keep or name in keep)}
    got = change(json.dumps(fields), values=assigned, drop=drop, keep=keep)
    assert json.loads(got) == expected
    assert list(json.loads(got)) == list(expected)


@given(objects, st.permutations("abcdef"))
def test_renames_may_swap(fields: dict[str, Any], to: list[str]) -> None:
    renames = dict(zip("abcdef", to, strict=True))
    got = json.loads(change(json.dumps(fields), rename=renames))
    assert list(got.items()) == [(renames[name], value) for name, value in fields.items()]


def test_bytes_of_what_is_not_touched_stay() -> None:
    line = '{"a":1.10,"scores":{"x":2E1,"y":1.50},"big":123456789012345678901,"e":"\\u00e9"}'
    assert change(line, drop=["scores.x"]) == '{"a":1.10,"scores":{"y":1.50},"big":123456789012345678901,"e":"\\u00e9"}'
    assert change(line, drop=["nothing"]) == line
    assert change(line, rename={"a": "b"}) == line.replace('"a"', '"b"')


def test_dotted_names() -> None:
    line = '{"scores":{"a":1,"b":2},"x.y":3}'
    assert change(line, rename={"scores.a": "top", "x.y": "scores.c"}) == '{"scores":{"b":2,"c":3},"top":1}'
    assert change(line, values={"scores.a": 9, "new.z": 1}) == '{"scores":{"a":9,"b":2},"x.y":3,"new":{"z":1}}'
    assert change(line, keep=["scores.b", "x.y"]) == '{"scores":{"b":2},"x.y":3}'
    assert change(line, keep=["scores.nope"]) == "{}"
    assert change(line, rename={"scores.nope": "z"}) == line
    with pytest.raises(RecordError, match=r"there is a field 'scores\.b' already"):
        change(line, rename={"scores.a": "scores.b"})


def test_via_goes_where_the_field_goes() -> None:
    line = '{"pred":{"label":"x"},"scores":{"a":1},"via":{"pred":"z","scores.a":"c"}}'
    assert json.loads(change(line, rename={"scores": "old"}))["via"] == {"pred": "z", "old.a": "c"}
    assert json.loads(change(line, rename={"scores.a": "s"}))["via"] == {"pred": "z", "s": "c"}
    assert json.loads(change(line, drop=["pred"]))["via"] == {"scores.a": "c"}
    assert "via" not in json.loads(change(line, drop=["pred", "scores"]))
    assert json.loads(change(line, values={"pred": 1}))["via"] == {"scores.a": "c"}


def test_names_that_no_record_had_are_said() -> None:
    config = {
        "rename": {"a": "b", "nope": "c"},
        "values": {"new": 1},
        "drop": ["s.x", "s.y"],
        "keep": ["b", "new", "late", "id"],
    }
    stage = Set(config)
    stage.setup()
    assert stage.notices == []
    stage.process([Record.parse(b'{"id":"1","a":1,"s":{"x":2}}', "f:1"), Record.parse(b'{"late":null}', "f:2")])
    assert stage.notices == ["no record had the fields 'nope', 's.y'"]


def test_cat_keeps_lines() -> None:
    record = Record.parse(b'{"a" : 1}')
    assert Cat({}).process([record]) == [record] and record.line == b'{"a" : 1}'


def test_words() -> None:
    words = ["a=1", "b=x=y", 'c="1"', "d=", "e=[1]", "f=007", "g=null"]
    assert parse_values(words) == {"a": 1, "b": "x=y", "c": "1", "d": "", "e": [1], "f": "007", "g": None}
    assert parse_renames(["text=caption,label=class", "n=m"]) == {"caption": "text", "class": "label", "m": "n"}
    assert parse_names(["a, b", "c"]) == ["a", "b", "c"]


@pytest.mark.parametrize("word", ["a", "=1"])
def test_values_that_are_none(word: str) -> None:
    with pytest.raises(UsageError, match="takes NAME=VALUE"):
        parse_values([word])


@pytest.mark.parametrize("words", ["a", "a=", "a=b,a=c", "a=b,c=b"])
def test_renames_that_are_none(words: str) -> None:
    with pytest.raises(UsageError, match="--rename"):
        parse_renames([words])
