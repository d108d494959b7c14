"""The record contract, field by field."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.stream.record import KNOWN_FIELDS, Record
from clipkit.stream.validate import check


def wrong(**fields: Any) -> list[str]:
    return [problem.message for problem in check(Record.parse(json.dumps(fields).encode(), "f:1"))]


SOUND = [
    {"id": "a"},
    {"id": 7},
    {"label": "cat"},
    {"label": ["cat", "dog"]},
    {"label": []},
    {"split": "train"},
    {"texts": [{"text": "a", "source": "alt", "more": 1}, {"text": ""}]},
    {"texts": [{"text": "a", "negative": True}, {"text": "b", "negative": None}]},
    {"pred": {"label": "cat", "prob": 1, "margin": 0.0, "topk": [["cat", 0.5]], "more": None}},
    {"scores": {"clip": -0.5, "n": None}},
    {"emb": {"image": "feats/x#img_emb_0:17", "text": "AAA8PA=="}},
    {"via": {"pred": "zeroshot/M@1"}},
    {"drop": {"by": "filter", "reason": "r", "value": None, "limit": 1}},
    {"error": {"verb": "v", "type": "t", "message": "m"}},
    {"width": 1, "height": 2},
    {"n": 0},
]

REFERENCE = "DIR#PART:ROW of a feature store"
UNSOUND = [
    ({"id": ""}, "id: is empty"),
    ({"id": 1.5}, "id: expected a string, got a number"),
    ({"id": True}, "id: expected a string, got true or false"),
    ({"id": "/a/b"}, "id: '/a/b' is an absolute path: it would change with the machine"),
    ({"id": "C:\\a"}, "id: 'C:\\\\a' is an absolute path: it would change with the machine"),
    ({"id": "e\u0301"}, "id: 'e\u0301' is not in Unicode normal form C: it is compared as if it were"),
    ({"image": ""}, "image: is empty"),
    ({"image": ["a"]}, "image: expected a string, got a list"),
    ({"text": 3}, "text: expected a string, got a number"),
    ({"texts": ["a"]}, "texts: [0]: expected an object, got a string"),
    ({"texts": [{"text": "a", "source": 1}]}, "texts: [0].source: expected a string, got a number"),
    ({"texts": [{"text": "a", "negative": "no"}]}, "texts: [0].negative: expected true or false, got a string"),
    ({"label": 3}, "label: expected a class name or a list of them, got a number"),
    ({"label": ["a", None]}, "label: expected class names, got null among them"),
    ({"split": "dev"}, "split: expected train, val or test, got 'dev'"),
    ({"split": 1}, "split: expected a string, got a number"),
    ({"pred": "cat"}, "pred: expected an object, got a string"),
    ({"pred": {"label": 1}}, "pred: label: expected a class name, got a number"),
    ({"pred": {"prob": -0.1}}, "pred: prob: expected a number from 0 to 1, got -0.1"),
    ({"pred": {"topk": [["a"]]}}, "pred: topk: expected pairs of a class name and a number"),
    ({"width": 0}, "width: expected pixels above 0, got 0"),
    ({"n": -1}, "n: expected how often it is packed, got -1"),
    ({"n": "3"}, "n: expected a whole number, got a string ('3')"),
    ({"height": "4"}, "height: expected a whole number, got a string ('4')"),
    ({"scores": [1]}, "scores: expected an object, got a list"),
    ({"scores": {"a": True}}, "scores: a: expected a number or null, got true or false"),
    ({"emb": {"image": [0.1]}}, f"emb: image: a list of numbers; expected {REFERENCE}, or base64 of 16-bit floats"),
    ({"emb": {"image": "AAA="}}, None),
    ({"emb": {"image": "AA=="}}, f"emb: image: neither {REFERENCE} nor base64 of 16-bit floats"),
    ({"emb": {"image": "d#p"}}, f"emb: image: neither {REFERENCE} nor base64 of 16-bit floats"),
    ({"via": {"pred": 1}}, "via: pred: expected a string, got a number"),
    ({"drop": {"by": "x"}}, "drop: reason: expected a string, got null"),
    ({"error": "boom"}, "error: expected an object, got a string"),
]  # fmt: skip


@pytest.mark.parametrize("fields", SOUND, ids=str)
def test_sound(fields: dict[str, Any]) -> None:
    assert wrong(**fields) == []


@pytest.mark.parametrize(("fields", "message"), UNSOUND, ids=str)
def test_unsound(fields: dict[str, Any], message: str | None) -> None:
    assert wrong(**fields) == ([] if message is None else [message])


@pytest.mark.parametrize("name", sorted(KNOWN_FIELDS))
def test_null_is_absence_and_every_known_field_is_checked(name: str) -> None:
    assert wrong(**{name: None}) == []
    assert len(wrong(**{name: {"x": 1} if name in ("via", "emb") else {"label": 1, "x": "y"}})) == 1


def test_the_table_of_the_documentation_names_them_all() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/records.md").read_text(encoding="utf-8")
    table = page[page.index("| field | type |") : page.index("A `null` is")]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == KNOWN_FIELDS


@given(
    st.dictionaries(
        st.text().filter(lambda name: name not in KNOWN_FIELDS),
        st.none() | st.integers(-9, 9) | st.text() | st.just([{}]),
    )
)
def test_unknown_fields_are_always_right(fields: dict[str, Any]) -> None:
    assert wrong(**fields) == []


def test_numbers_beyond_what_json_readers_hold() -> None:
    found = check(Record.parse(b'{"scores":{"clip":1E400},"other":1E400}', "f:3"))
    assert [(problem.where, problem.kind) for problem in found] == [("f:3", "bad-scores")]
