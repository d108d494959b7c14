"""concepts curve end to end: what it takes as a result, what it leaves out, what it says."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipkit.api import run
from clipkit.errors import ClipkitError, RecordError
from clipkit.methods.concepts.counts import Counts
from clipkit.stages.curve import Curve


@pytest.fixture
def counts(tmp_path: Path) -> str:
    """cat 1000 times, newt 10, red kite 100, okapi never; in images and in both other numbers."""
    seen = {"cat": (1000, 50, 40), "newt": (10, 50, 4), "red kite": (100, 500, 4), "okapi": (0, 1, 0)}
    of = {name: dict(zip(("text", "image", "both"), numbers, strict=True)) for name, numbers in seen.items()}
    any_ = {"text": 1110, "image": 601, "both": 48, "either": 1500}
    made = Counts(tuple(seen), {}, ("text", "image", "both"), 5000, of, any_)
    path = tmp_path / "counts.jsonl"
    path.write_bytes(b"".join(row.encode() + b"\n" for row in made.rows()))
    return str(path)


def curve(results: list[dict[str, Any]], counts: str, **config: Any) -> list[dict[str, Any]]:
    stage = Curve({"counts": [counts], "by": "text", **config})
    return [record.to_dict() for record in run(stage, results)]


def answers(label: str, right: int, wrong: int) -> list[dict[str, Any]]:
    good, bad = {"label": label, "pred": {"label": label}}, {"label": label, "pred": {"label": "dodo"}}
    return [good] * right + [bad] * wrong


RESULTS = answers("newt", 1, 4) + answers("red_kite", 3, 7) + answers("cat", 1, 1) + answers("okapi", 0, 1)


def test_answers_and_accuracies_say_the_same(counts: str) -> None:
    (fit,) = curve(RESULTS, counts)
    assert (fit["slope"], fit["intercept"], fit["classes"]) == (0.15, 0.033333, 3)
    assert fit["excluded"] == {"never_seen": 1, "not_counted": 0}
    given = [
        {"class": "newt", "accuracy": 0.2, "n": 5},
        {"label": "red kite", "accuracy": 0.3},
        {"id": "cat", "accuracy": 0.5},
        {"concept": "okapi", "accuracy": 0},
    ]
    assert curve(given, counts) == [fit]


def test_one_class_in_common_is_enough(counts: str) -> None:
    (fit,) = curve(answers("emu", 1, 0) + answers("cat", 1, 1), counts)
    assert (fit["classes"], fit["excluded"]["not_counted"]) == (1, 1)


def test_neither_the_order_of_results_nor_that_of_classes_matters(counts: str) -> None:
    (fit,) = curve(RESULTS, counts)
    for number in range(3):
        assert curve(random.Random(number).sample(RESULTS, len(RESULTS)), counts) == [fit]
    assert curve(RESULTS, counts, seed=1)[0]["slope"] == fit["slope"]


def test_by_what_is_counted(counts: str) -> None:
    (both,) = curve(RESULTS, counts, by="both")
    assert curve(RESULTS, counts, by=None) == [both]
    x, y = np.log10([40, 4, 4]), [0.5, 0.2, 0.3]
    assert both["slope"] == pytest.approx(np.polyfit(x, y, 1)[0], abs=1e-6)
    assert curve(RESULTS, counts, by="image")[0]["classes"] == 4


def test_an_answer_with_several_true_labels_is_right_if_it_is_one_of_them(counts: str) -> None:
    results = [*RESULTS, {"label": ["cat", "newt"], "pred": {"label": "newt"}}]
    rows = {row["id"]: row for row in curve(results, counts, per_class=True)}
    assert (rows["cat"]["answers"], rows["cat"]["accuracy"]) == (3, 0.666667)
    assert (rows["newt"]["answers"], rows["newt"]["accuracy"]) == (6, 0.333333)


def test_classes_by_count_with_their_distance_from_the_line(counts: str) -> None:
    rows = curve(RESULTS, counts, per_class=True)
    assert [(row["id"], row["count"]) for row in rows] == [("okapi", 0), ("newt", 10), ("red_kite", 100), ("cat", 1000)]
    assert rows[0]["expected"] is None
    assert rows[1]["expected"] == pytest.approx(0.033333 + 0.15, abs=2e-6)
    assert sum(row["residual"] for row in rows[1:]) == pytest.approx(0, abs=3e-6)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"label": "cat"}, "no field 'pred'"),
        ({"pred": {"label": "cat"}}, "no field 'label'"),
        ({"label": 3, "pred": {"label": "cat"}}, "not a class name"),
        ({"label": [], "pred": {"label": "cat"}}, "not a class name"),
        ({"label": "cat", "pred": {"prob": 1}}, "names no label"),
        ({"accuracy": 0.5}, "no class"),
        ({"id": "cat", "accuracy": 50}, "from 0 to 1"),
        ({"id": "cat", "accuracy": True}, "from 0 to 1"),
        ({"id": "cat", "accuracy": 10**400}, "from 0 to 1: 10{59}$"),
        ({"id": "cat", "accuracy": 0.5, "n": 0}, "number of answers"),
    ],
)
def test_what_is_no_result(result: dict[str, Any], said: str, counts: str) -> None:
    with pytest.raises(RecordError, match=said):
        curve([result], counts)


def test_what_is_no_file_of_counts(tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text('{"id":"cat","text":"a cat"}\n')
    with pytest.raises(ClipkitError, match="doesn't end with a row"):
        curve(RESULTS, str(path))


def test_names_that_do_not_meet_stop_the_run(counts: str, clipkit: Any) -> None:
    lines = "".join(json.dumps({"label": name, "pred": {"label": "cat"}}) + "\n" for name in ("katze", "hund"))
    done = clipkit("concepts", "curve", "--counts", counts, stdin=lines)
    assert (done.code, done.stdout) == (1, "")
    first, second = done.stderr.splitlines()
    assert first == "clipkit concepts curve: no class of the results was counted: hund, katze"
    assert second == "hint: the counts are of cat, newt, red kite, okapi: count these classes"


def test_the_fit_is_in_the_report(counts: str, clipkit: Any, tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in RESULTS)
    done = clipkit("concepts", "curve", "--counts", counts, "-o", "fit.json", "--report", "report.json", stdin=lines)
    assert (done.code, done.stdout) == (0, "")
    fit = json.loads((tmp_path / "fit.json").read_text())
    assert json.loads((tmp_path / "report.json").read_text())["facts"] == fit
    assert sum(decade["classes"] for decade in fit["decades"]) == 4
