"""What explain says of records that others made."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.stages.explain import describe, rows
from clipkit.stream.record import KNOWN_FIELDS, Record

FOREIGN: list[tuple[str, Any, list[tuple[str, Any, Any]]]] = [
    ("error", "it broke", [("error", "it broke", None)]),
    ("drop", "blurred", [("drop", "blurred", None)]),
    ("via", "me", [("via", "me", None)]),
    ("via", {"pred": 7}, [("pred", None, 7)]),
    ("texts", ["a", {"text": "b", "source": "s"}], [("texts", "a", None), ("texts", "b", "s")]),
    ("texts", "a", [("texts", "a", None)]),
    ("scores", 0.5, [("scores", 0.5, None)]),
    ("scores", [1], [("scores", [1], None)]),
    ("pred", "cat", [("pred", "cat", None)]),
]


@pytest.mark.parametrize(("field", "value", "steps"), FOREIGN, ids=str)
def test_foreign_shapes_are_shown_as_they_are(field: str, value: Any, steps: list[tuple[str, Any, Any]]) -> None:
    story = describe(Record({"id": "a", field: value}))
    assert [(step["field"], step["value"], step["by"]) for step in story["steps"]] == steps


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc") | st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(KNOWN_FIELDS)), values))
def test_any_record_has_a_story(fields: dict[str, Any]) -> None:
    story = describe(Record(fields))
    json.dumps(story)
    for line in rows(story):
        assert all(isinstance(text, str) for text in json.loads(line).values())
