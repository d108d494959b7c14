"""Names that no record has: what is said, and what may have been meant."""

from __future__ import annotations

import json

import pytest

from clipkit.errors import UsageError
from clipkit.stream.fieldnames import Sought, field_names, missing_field, suggestion
from clipkit.stream.record import Record


def record(value: object) -> Record:
    return Record.parse(json.dumps(value).encode())


def test_fields_of_objects_are_dotted_but_for_via() -> None:
    given = record({"id": "a", "scores": {"clip": 1}, "via": {"scores.clip": "x"}, "empty": {}})
    assert field_names(given) == ["id", "scores", "scores.clip", "via", "empty"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lable", "did you mean 'label'?"),
        ("score.clip", "did you mean 'scores.clip'?"),
        ("clip", "did you mean 'scores.clip'?"),
        ("qqqq", "there are: label, scores.clip"),
    ],
)
def test_what_may_have_been_meant(name: str, hint: str) -> None:
    assert suggestion(name, ["label", "scores.clip"]) == hint


def test_many_names_are_cut_and_none_is_no_hint() -> None:
    assert str(suggestion("q", [f"x{i}zzzz" for i in range(40)])).endswith(", ...")
    assert suggestion("q", []) is None


def test_a_name_is_unseen_until_one_record_has_it() -> None:
    sought = Sought(["label", "scores.clip"])
    sought.check()  # no record, no complaint
    sought.look(record({"label": None}))
    with pytest.raises(UsageError, match=r"records\.jsonl: no record has a field 'scores\.clip'"):
        sought.check("records.jsonl")
    for _ in range(200):
        sought.look(record({"id": "x"}))
    sought.look(record({"scores": {"clip": None}}))
    sought.check()


def test_a_record_that_lacks_a_field_says_what_it_has() -> None:
    error = missing_field("albun", record({"album": 1}))
    assert (error.kind, error.message, error.hint) == ("missing-field", "no field 'albun'", "did you mean 'album'?")
