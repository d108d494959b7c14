"""stats: every figure against numpy or a plain count, in any memory."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipkit.errors import RecordError
from clipkit.stream import stats as module
from clipkit.stream.record import Record
from clipkit.stream.sources import BadLine
from clipkit.stream.stats import PERCENTILES, Stats
from clipkit.stream.stats_table import histogram, lines_of


def summed(records: Iterable[Any], *only: str) -> dict[str, Any]:
    stats = Stats(only)
    for each in records:
        stats.add(each if isinstance(each, BadLine) else Record.parse(json.dumps(each).encode()))
    found = stats.summary()
    stats.close()
    json.dumps(found, allow_nan=False)
    return found


NUMBERS = st.lists(st.integers(-5, 5) | st.floats(-1e6, 1e6), min_size=1, max_size=200)


@settings(deadline=None, max_examples=60)
@given(NUMBERS, st.sampled_from([1, 7, 1 << 16]))
def test_numbers_are_numpy_s(values: list[float], held: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_HELD", held)
        found = summed({"v": value} for value in values)["fields"]["v"]
    numbers = found["numbers"]
    assert (numbers["min"], numbers["max"]) == (min(values), max(values))
    expected = np.percentile(values, PERCENTILES)
    assert np.allclose([numbers[f"p{p}"] for p in PERCENTILES], expected, rtol=1e-12, atol=1e-9)
    assert numbers["mean"] == math.fsum(values) / len(values)
    assert math.isclose(numbers["std"], float(np.std(values)), rel_tol=1e-9, abs_tol=1e-6)
    assert found["distinct"] == len(set(map(float, values))) and found["distinct_exact"]
    bins = numbers["histogram"]
    assert sum(bins["counts"]) == len(values) and bins["from"] == numbers["p1"] and bins["to"] == numbers["p99"]
    if bins["from"] < bins["to"]:
        inside = [value for value in values if bins["from"] < value < bins["to"]]
        counts = np.histogram(inside, len(bins["counts"]), (bins["from"], bins["to"]))[0]
        assert bins["counts"][1:-1] == counts[1:-1].tolist()


@given(
    st.lists(
        st.sampled_from([None, "a", "b", "é", True, False, 3, 2.5, [], ["a", "c"], [1], {}, "x" * 500]), min_size=1
    )
)
def test_types_and_values_are_counted(values: list[Any]) -> None:
    fields = summed({"id": str(i), "v": value} for i, value in enumerate(values))["fields"]
    there = [value for value in values if value is not None]
    if not there:
        assert list(fields) == ["id"]
        return
    found = fields["v"]
    names = {bool: "bool", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    assert found["types"] == Counter(names[type(value)] for value in there)
    assert (found["count"], found["missing"]) == (len(there), len(values) - len(there))
    texts = Counter([v for v in there if isinstance(v, str)] + [t for v in there if v == ["a", "c"] for t in v])
    truths = Counter(v for v in there if isinstance(v, bool))
    numbers = {v for v in there if isinstance(v, int | float) and not isinstance(v, bool)}
    assert found.get("distinct", 0) == len(texts) + len(truths) + len(numbers)
    top = {value: count for value, count in found.get("top", []) if not (isinstance(value, str) and len(value) > 200)}
    del texts["x" * 500]
    assert Counter({k: v for k, v in top.items() if isinstance(k, str)}) == texts
    assert Counter({k: v for k, v in top.items() if isinstance(k, bool)}) == truths


def test_more_values_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_VALUES", 3)
    found = summed({"v": value} for value in "abcdeabza")["fields"]["v"]
    assert (found["distinct"], found["distinct_exact"]) == (3, False)
    assert found["top"] == [["a", 3], ["b", 2], ["c", 1]]
    assert ">= 3" in "\n".join(lines_of(summed({"v": value} for value in "abcdeabza"), "utf-8"))


def test_all_fields_share_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_IN_ALL", 5)
    fields = summed({"v": value, "w": value} for value in "abcdab")["fields"]
    assert [fields[name]["distinct"] for name in "vw"] == [3, 2]
    assert not fields["v"]["distinct_exact"] and fields["v"]["top"] == [["a", 2], ["b", 2], ["c", 1]]


def test_more_fields_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_FIELDS", 2)
    stats = Stats()
    stats.add(Record({"a": 1, "b": 2, "c": 3}))
    assert list(stats.summary()["fields"]) == ["a", "b"]
    assert stats.notices() == ["more than 2 fields: the others are left out"]


def test_objects_one_level_and_long_texts_apart() -> None:
    long = "y" * 300
    found = summed([{"pred": {"label": "x", "topk": [["x", 1]], "deep": {"a": 1}}, "t": long + "1"}, {"t": long + "2"}])
    assert list(found["fields"]) == ["pred.label", "pred.topk", "pred.deep", "t"]
    assert found["fields"]["pred.label"]["missing"] == 1 and found["fields"]["pred.deep"]["types"] == {"object": 1}
    assert found["fields"]["t"]["distinct"] == 2


def test_what_went_wrong_is_told_apart() -> None:
    bad = BadLine("f:1", b"{", RecordError("bad-json", "not JSON"), "f", b"d" * 16)
    given = [
        {"id": "a", "v": 1, "drop": {"by": "filter", "reason": "small"}, "via": {"v": "me"}},
        {"id": "b", "v": 5, "error": {"verb": "scan", "type": "image-missing", "message": "m"}},
        {"id": "c", "error": "free text"},
        bad,
    ]
    found = summed(given)
    assert found["records"] == 3 and found["unreadable"] == {"bad-json": 1}
    assert found["errors"] == {"image-missing": 1, "free text": 1} and found["drops"] == {"small": 1}
    assert list(found["fields"]) == ["id", "v"] and found["fields"]["v"]["numbers"]["max"] == 1
    assert list(summed(given, "via", "drop.reason")["fields"]) == ["drop.reason", "via.v"]


@pytest.mark.parametrize("values", [[10**400, 1], [1.7e308, -1.7e308, 1.7e308, 1.7e308], [2**53 + 1, 2**53 + 1]])
def test_numbers_at_the_edge_of_doubles_stay_json(values: list[Any]) -> None:
    found = summed({"v": value} for value in values)
    numbers = found["fields"]["v"]["numbers"]
    assert all(line.isprintable() for line in lines_of(found, "utf-8"))
    assert (numbers["min"], numbers["max"]) == (min(values), max(values))


def test_names_alone_and_mistyped() -> None:
    stats = Stats(["scores", "label", "lable"])
    stats.add(Record({"id": "a", "label": "x", "scores": {"clip": 1, "b": 2}}))
    assert list(stats.summary()["fields"]) == ["label", "scores.clip", "scores.b"]
    assert stats.notices() == ["no record has a field 'lable'; did you mean 'label'?"]


def test_a_histogram_in_characters() -> None:
    assert histogram([0, 1, 4, 8] * 5, "12345678") == " 148" * 5
    assert histogram([5], "12345678") == "8"
    assert histogram([0, 1, 4, 8] * 5, "12345678", 19) == "18" * 5
    assert histogram([1, 0, 0, 3] * 5, "12345678", 3) == "88888"


def test_the_table_fits_and_shows_nothing_that_drives_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    given = [{"id": f"r{i}", "t\x1b[31m": "a\x1b]0;x\x07b" * 9, "日本": "日本語" * 20, "w": i} for i in range(9)]
    lines = list(lines_of(summed(given), "utf-8"))
    assert all(line.isprintable() for line in lines)
    from clipkit.stream.table import display_width

    assert max(map(display_width, lines)) <= 84  # the last column keeps 8 cells
    for line in lines_of(summed(given), "ascii"):
        assert line.isascii()


def test_a_run_ends_quietly_when_nobody_reads(clipkit: Any, tmp_path: Any) -> None:
    import subprocess
    import sys

    fields = {f"field_{i}": i for i in range(400)}
    (tmp_path / "in.jsonl").write_text(json.dumps(fields) + "\n")
    program = f"{sys.executable} -P -m clipkit stats in.jsonl | true"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", program], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode in (0, 141) and done.stderr == b""
