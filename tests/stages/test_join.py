"""join: each kind against the same worked out with dicts; bytes, via, and what cannot be joined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipkit.api import run
from clipkit.errors import ClipkitError, RecordError, UsageError
from clipkit.stages.join import Join
from clipkit.stream.record import Record


@pytest.fixture
def right(tmp_path: Path) -> Path:
    return tmp_path / "right.jsonl"


def joined(left: list[str], right: Path, others: list[str], *, on_error: Any = "fail", **config: Any) -> list[str]:
    right.write_text("".join(line + "\n" for line in others))
    stage = Join({"right": str(right), **config})
    given = [Record.parse(line.encode(), f"left:{i}") for i, line in enumerate(left, 1)]
    return [record.encode().decode() for record in run(stage, given, on_error=on_error)]


SIDE = st.dictionaries(
    st.sampled_from("abcdefgh"), st.dictionaries(st.sampled_from("xy"), st.integers(0, 2)), max_size=6
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=SIDE, other=SIDE)
def test_each_kind_is_what_dicts_give(right: Path, left: dict[str, Any], other: dict[str, Any]) -> None:
    mine = [json.dumps({"id": name} | fields) for name, fields in left.items()]
    theirs = [json.dumps({"id": name} | fields) for name, fields in reversed(other.items())]

    def ids(how: str) -> list[str]:
        return [json.loads(line)["id"] for line in joined(mine, right, theirs, how=how, prefix="r_")]

    updated = [json.loads(line) for line in joined(mine, right, theirs, how="update")]
    assert updated == [{"id": name} | fields | other.get(name, {}) for name, fields in left.items()]
    semi, anti = ([line for line in mine if (json.loads(line)["id"] in other) == has] for has in (True, False))
    assert joined(mine, right, theirs, how="semi") == semi
    assert joined(mine, right, theirs, how="anti") == anti
    assert ids("left") == list(left) and ids("inner") == [name for name in left if name in other]
    kept = [json.loads(line) for line in joined(mine, right, theirs, on_error="skip")]
    agree = [n for n, f in left.items() if all(f[k] == v for k, v in other.get(n, {}).items() if k in f)]
    assert kept == [{"id": name} | left[name] | other.get(name, {}) for name in agree]


def test_fields_come_byte_for_byte_and_a_record_without_news_is_untouched(right: Path) -> None:
    left = ['{"id":"a", "n":1.10}', '{"id":"b", "n":2}', '{"id":"c" }']
    out = joined(left, right, ['{"id":"a","x":1.10,"scores":{"s":0.50,"t":1E2}}', '{"id":"b","n":2,"y":null}'])
    assert out == ['{"id":"a","n":1.10,"x":1.10,"scores":{"s":0.50,"t":1E2}}', *left[1:]]


def test_what_comes_can_be_read_like_any_field(right: Path) -> None:
    right.write_text('{"id":"a","x":{"y":[1.10]},"scores":{"s":0.5}}\n')
    (record,) = run(Join({"right": str(right)}), [{"id": "a"}])
    assert record["x"] == {"y": [1.1]} and record.lookup("scores.s") == 0.5


def test_scores_are_merged_and_via_follows(right: Path) -> None:
    left = (
        '{"id":"a","scores":{"clip":0.2,"old":1.10},'
        '"via":{"scores.clip":"clip/1","scores.old":"o","pred":"p"},"pred":{"label":"x"}}'
    )
    other = (
        '{"id":"a","scores":{"clip":0.30,"new":2},"via":{"scores.clip":"clip/2","scores.new":"n"},"pred":{"label":"y"}}'
    )
    (out,) = joined([left], right, [other], how="update")
    assert out == (
        '{"id":"a","scores":{"clip":0.30,"old":1.10,"new":2},'
        '"via":{"scores.clip":"clip/2","scores.old":"o","scores.new":"n"},"pred":{"label":"y"}}'
    )


def test_a_conflict_is_an_error_that_names_both_and_leaves_the_record_alone(right: Path) -> None:
    left, other = '{"id":"a","first":null,"text":"mine", "n":1.10}', '{"id":"a","first":1,"text":"theirs"}'
    with pytest.raises(RecordError, match=r"left:1: its 'text' is 'mine', and 'theirs' in .*right.jsonl:1") as caught:
        joined([left], right, [other])
    assert caught.value.kind == "field-exists" and "--how update" in str(caught.value.hint)
    (kept,) = joined([left], right, [other], on_error="keep")
    assert kept.startswith('{"id":"a","first":null,"text":"mine","n":1.10,"error":')


def test_true_and_1_are_not_one_value(right: Path) -> None:
    with pytest.raises(RecordError):
        joined(['{"id":"a","x":true}'], right, ['{"id":"a","x":1}'])


def test_a_prefix_keeps_both(right: Path) -> None:
    left = '{"id":"a","text":"mine","r_text":"theirs"}'
    other = '{"uid":"a","text":"theirs","scores":{"s":1},"via":{"scores.s":"m","text":"t"}}'
    (out,) = joined([left], right, [other], prefix="r_")
    assert out == '{"id":"a","text":"mine","r_text":"theirs","r_scores":{"s":1},"via":{"r_scores.s":"m"}}'


def test_ids_are_compared_as_everywhere(right: Path) -> None:
    out = joined(['{"id":7}', '{"key":"e\u0301"}'], right, ['{"id":"7","x":1}', '{"uid":"é","x":2}'])
    assert [json.loads(line)["x"] for line in out] == [1, 2]


def test_on_a_field_a_number_is_not_a_text_and_many_may_share_a_partner(right: Path) -> None:
    left = ['{"id":"1","m":{"k":7}}', '{"id":"2","m":{"k":7.0}}', '{"id":"3","m":{"k":"7"}}', '{"id":"4"}']
    out = joined(left, right, ['{"id":"z","m":{"k":7},"x":1}'], on="m.k", how="semi")
    assert out == left[:2]


def test_what_is_left_out_of_the_right_is_told(right: Path) -> None:
    right.write_text('{"x":1}\n{"id":"b","error":{"verb":"v","type":"t","message":"m"}}\n{"id":"c"}\n')
    stage = Join({"right": str(right)})
    list(run(stage, [{"id": "b"}, {"id": "c"}]))
    first, second, third = stage.notices
    assert first.startswith("1 of 2 records have a partner, and 1 of 1 in")
    assert "1 in" in second and "has no id, and was left out" in second
    assert "1 in" in third and "came with an error" in third


@pytest.mark.parametrize("how", ["left", "inner", "anti"])
def test_where_nobody_matched_it_says_what_to_look_at(right: Path, how: str) -> None:
    right.write_text('{"id":"x"}\n')
    stage = Join({"right": str(right), "how": how})
    list(run(stage, [{"id": "a"}, {"id": "b"}]))
    first, *hint = stage.notices
    assert first.startswith("0 of 2 records have a partner, and 0 of 1 in")
    assert hint == ([] if how == "anti" else ["no record found a partner: --on FIELD names what both have"])


@pytest.mark.parametrize(
    ("others", "says"),
    [
        (['{"id":"a"}', '{"id":"a"}'], r"right.jsonl:2: id 'a' is also that of .*right.jsonl:1"),
        (['{"id":"a"}', "{"], r"right.jsonl:2: not JSON"),
    ],
)
def test_a_right_side_that_cannot_be_used_stops_it(right: Path, others: list[str], says: str) -> None:
    with pytest.raises(ClipkitError, match=says):
        joined(['{"id":"a"}'], right, others)


def test_a_field_that_the_right_side_lacks_is_a_usage_error(right: Path) -> None:
    with pytest.raises(UsageError, match=r"right.jsonl: no record has a field 'skus'") as caught:
        joined(['{"sku":1}'], right, ['{"id":"a","sku":1}'], on="skus")
    assert caught.value.hint == "did you mean 'sku'?"


def test_counts_add_up_for_every_kind(clipkit: Any, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"id":"a","x":1}\n{"id":"b","x":2}\n')
    left = '{"id":"a"}\n{"id":"b","x":9}\n{"id":"c"}\n{"id":"e","error":{"verb":"v","type":"t","message":"m"}}\n'
    expected = {
        "left": (2, 0, 1, {}),
        "inner": (1, 1, 1, {"no-partner": 1}),
        "update": (3, 0, 0, {}),
        "semi": (2, 1, 0, {"no-partner": 1}),
        "anti": (1, 2, 0, {"has-partner": 2}),
    }
    for how, (kept, dropped, failed, drops) in expected.items():
        flags = ("--how", how, "--on-error", "keep", "--lenient", "--report", "report.json")
        assert clipkit("join", "r.jsonl", "-", *flags, stdin=left).code == 0
        report = json.loads((tmp_path / "report.json").read_text())
        assert report["counts"] == {"read": 4, "kept": kept, "dropped": dropped, "failed": failed, "passed": 1}
        assert report["drops"] == drops
        assert report["facts"] == {"partners": 2, "right": 2, "right_found": 2}


def test_standard_input_is_one_side_only(clipkit: Any, tmp_path: Path) -> None:
    assert clipkit("join", "-", stdin="{}").code == 2
    (tmp_path / "l.jsonl").write_text('{"id":"a"}\n')
    assert clipkit("join", "-", "l.jsonl", stdin='{"id":"a","x":1}\n').lines == ['{"id":"a","x":1}']
    assert clipkit("join", "l.jsonl", "--how", "anti", "--prefix", "x", stdin="").code == 2
