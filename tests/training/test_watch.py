"""metrics.jsonl, and the curve that is drawn of it."""

from __future__ import annotations

import json
from pathlib import Path

from clipkit.training.card import thinned
from clipkit.training.watch import Metrics, read


def test_what_was_written_after_the_last_checkpoint_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = Metrics(path, 0)
    for step in range(1, 6):
        first.write({"step": step, "loss": 1.0 / step})
        if step == 3:
            first.write({"step": 3, "eval": {"n": 2}})
    first.close()
    with open(path, "ab") as file:
        file.write(b'{"step":6,"lo')
    before = path.read_bytes().splitlines(keepends=True)
    resumed = Metrics(path, 3)
    resumed.write({"step": 4, "loss": float("nan")})
    resumed.close()
    assert path.read_bytes().splitlines(keepends=True)[:4] == before[:4]
    assert [json.loads(line) for line in path.read_bytes().splitlines()[4:]] == [{"step": 4, "loss": None}]
    assert [said["step"] for said in read(path)] == [1, 2, 3, 3, 4]
    Metrics(path, 0).close()
    assert path.read_bytes() == b""


def test_lines_that_are_none_end_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step":1}\n{"step":"2"}\n{"step":3}\n')
    assert list(read(path)) == [{"step": 1}]
    assert list(read(tmp_path / "none")) == []


def test_a_long_curve_has_a_hundred_points_and_its_extremes() -> None:
    losses = [float(number % 7) for number in range(1, 1001)]
    points = thinned(list(range(1, 1001)), losses)
    assert len(points) == 100 and points[-1]["x"] == 1000
    assert sum(point["value"] for point in points) * 10 == sum(losses)
    assert all(point["low"] == 0 and point["high"] == 6 for point in points)
    assert thinned([], []) == []
