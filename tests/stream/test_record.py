"""Records: what nobody touches keeps its bytes; dotted fields; ids; what is refused."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.errors import RecordError
from clipkit.stream.record import Record, decode_json, encode_json

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(text, values, max_size=6)


def line_of(fields: dict[str, Any], *, ascii_only: bool = False) -> bytes:
    return json.dumps(fields, ensure_ascii=ascii_only).encode()


@given(objects, st.booleans())
def test_an_unchanged_record_is_its_line(fields: dict[str, Any], ascii_only: bool) -> None:
    line = line_of(fields, ascii_only=ascii_only)
    assert Record.parse(line).encode() == line


@given(objects, values)
def test_a_changed_record_keeps_every_other_field_and_the_order(fields: dict[str, Any], value: Any) -> None:
    record = Record.parse(line_of(fields))
    record["new field"] = value
    out = json.loads(record.encode())
    assert out == {**fields, "new field": value}
    assert list(out) == list({**fields, "new field": value})


def test_unknown_values_keep_their_very_bytes() -> None:
    line = b'{"f":1.10,"e":1E400,"big":123456789012345678901234567890,"s":"\\u00e9","n":{"x":[1.0, 2]}}'
    record = Record.parse(line)
    record["id"] = "a"
    assert record.encode() == line[:-1] + b',"id":"a"}'


def test_siblings_of_a_dotted_field_keep_their_bytes() -> None:
    record = Record.parse(b'{"scores":{"a":1.10,"b":2E5},"via":{"scores.a":"x"}}')
    record.add("scores.clip", 0.25, "clip/lite@0")
    assert record.encode() == (
        b'{"scores":{"a":1.10,"b":2E5,"clip":0.25},"via":{"scores.a":"x","scores.clip":"clip/lite@0"}}'
    )
    assert record.discard("scores.a") and not record.discard("scores.a")
    assert record.lookup("scores.clip") == 0.25 and record.lookup("scores.a") is None
    assert record.lookup("scores.clip.x", "none") == "none"


def test_what_cannot_be_held_spoils_no_sibling() -> None:
    record = Record.parse(b'{"scores":{"a":1E400,"b":{"c":2,"d":1E400},"n":null}}')
    assert record.lookup("scores.b.c") == 2
    assert [record.lookup(name, "none") for name in ("scores.x", "scores.n", "scores.n.x")] == ["none", None, "none"]
    for name in ("scores", "scores.a", "scores.b", "scores.b.d"):
        with pytest.raises(RecordError, match=f"field '{name}'"):
            record.lookup(name)


def test_null_in_via_is_as_absent() -> None:
    record = Record.parse(b'{"id":"a","via":null,"scores":null}')
    record.add("scores.clip", 0.5, "clip")
    assert json.loads(record.encode()) == {"id": "a", "via": {"scores.clip": "clip"}, "scores": {"clip": 0.5}}
    with pytest.raises(RecordError, match="'via' is not an object"):
        Record.parse(b'{"via":"x"}').add("pred", 1, "me")


def test_a_field_literally_named_with_a_dot_wins() -> None:
    record = Record.parse(b'{"scores.clip":1,"scores":{"clip":2}}')
    assert record.lookup("scores.clip") == 1
    record.put("scores.clip", 3)
    assert json.loads(record.encode()) == {"scores.clip": 3, "scores": {"clip": 2}}


def test_rename_keeps_order_and_bytes_and_never_overwrites() -> None:
    record = Record.parse(b'{"filepath":"a.jpg","n":1.10}')
    record.rename({"filepath": "image"})
    assert record.encode() == b'{"image":"a.jpg","n":1.10}'
    with pytest.raises(RecordError, match="'n' already"):
        record.rename({"image": "n"})
    swap = Record.parse(b'{"a":1,"b":2}')
    swap.rename({"a": "b", "b": "a"})
    assert swap.encode() == b'{"b":1,"a":2}'


@pytest.mark.parametrize(
    ("line", "kind", "said"),
    [
        (b'{"a":NaN}', "bad-json", "not JSON"),
        (b'{"a":1}}', "bad-json", "trailing"),
        (b'{"a":', "bad-json", "not JSON"),
        (b"[1]", "bad-json", "object"),
        (b'{"a":"\xff"}', "bad-utf8", "byte 6"),
        (b'{"a":' + b"[" * 9999 + b"]" * 9999 + b"}", "bad-json", "deeply"),
        (b"", "bad-json", "not JSON"),
    ],
)
def test_what_is_not_an_object_is_refused_by_place(line: bytes, kind: str, said: str) -> None:
    with pytest.raises(RecordError, match=said) as caught:
        Record.parse(line, "f.jsonl:3")
    assert caught.value.kind == kind and caught.value.where == "f.jsonl:3"


def test_a_value_that_python_cannot_hold_is_an_error_only_when_read() -> None:
    record = Record.parse(b'{"e":1E400,"id":"a"}')
    assert record["id"] == "a"
    with pytest.raises(RecordError, match="'e'"):
        record["e"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"x": [float("-inf")]}])
def test_no_number_that_json_lacks_is_written(value: Any) -> None:
    record = Record({"scores": value})
    with pytest.raises(ValueError, match="not JSON"):
        record.encode()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"id": "a", "uid": "b"}, "a"),
        ({"uid": "b", "key": "c"}, "b"),
        ({"key": 17}, "17"),
        ({"id": "", "key": "c"}, "c"),
        ({"id": None}, "derived"),
        ({"id": True}, "derived"),
        ({"id": "Cafe\u0301"}, unicodedata.normalize("NFC", "Cafe\u0301")),
    ],
)
def test_the_id(fields: dict[str, Any], expected: str) -> None:
    assert Record(fields, key="derived").id == expected


@given(values)
def test_json_round_trip(value: Any) -> None:
    assert decode_json(encode_json(value)) == json.loads(json.dumps(value))


def test_a_copy_is_independent() -> None:
    record = Record.parse(b'{"a":1}', "f:1")
    twin = record.copy()
    twin["a"] = 2
    assert record.encode() == b'{"a":1}' and twin.encode() == b'{"a":2}' and twin.where == "f:1"


def test_what_json_cannot_hold_becomes_null() -> None:
    record = Record(
        {"id": "a", "scores": {"x": float("nan"), "y": 1.5}, "text": "half \udc80", "good": "caf\u00e9 \U0001f600"}
    )
    assert record.null_unwritable() == ["scores", "text"]
    assert json.loads(record.encode()) == {
        "id": "a",
        "scores": {"x": None, "y": 1.5},
        "text": None,
        "good": "caf\u00e9 \U0001f600",
    }


@pytest.mark.parametrize(
    ("name", "theirs", "expected"),
    [
        ("n", "n", b'{"a":1,"scores":{"x":1.10},"n":1.10}'),
        ("a", "n", b'{"a":1.10,"scores":{"x":1.10}}'),
        ("scores.y", "scores.y", b'{"a":1,"scores":{"x":1.10,"y":2.50}}'),
        ("r_scores", "scores", b'{"a":1,"scores":{"x":1.10},"r_scores":{"y":2.50}}'),
        ("scores.n", "made", b'{"a":1,"scores":{"x":1.10,"n":[3]}}'),
        ("e", "e", b'{"a":1,"scores":{"x":1.10},"e":1E400}'),
    ],
)
def test_a_field_of_another_record_comes_with_its_bytes(name: str, theirs: str, expected: bytes) -> None:
    record, other = (
        Record.parse(b'{"a":1,"scores":{"x":1.10}}'),
        Record.parse(b'{"n":1.10,"scores":{"y":2.50},"e":1E400}'),
    )
    other["made"] = [3]
    record.take(name, other, theirs)
    assert record.encode() == expected
    if theirs != "e":
        assert record.lookup(name) == other.lookup(theirs)
    with pytest.raises(KeyError):
        record.take("z", other, "absent")
