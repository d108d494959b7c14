"""Soups of real runs of `clipkit train`: from one start, on emoji, with different seeds and rates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import InProcess
from tests.soups import pictures

pytestmark = pytest.mark.slow
_CLASSES = 3  # the largest
_EACH = 30  # pictures of a class


@pytest.fixture(autouse=True)
def _one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads of training that wait for others beside them are far slower than one."""
    from clipkit.training import loop

    monkeypatch.setattr(loop, "available_cores", lambda: 1)


@pytest.fixture
def records(shared_data: Path) -> list[dict[str, str]]:
    folder = shared_data / "icons/emoji"
    found: dict[str, list[dict[str, str]]] = {}
    for line in (folder / "pairs.jsonl").read_text().splitlines():
        said = json.loads(line)
        image = folder / said["image"]
        one = {"id": said["id"], "image": str(image), "text": said["text"], "label": said["label"]}
        if image.is_file():
            found.setdefault(one["label"], []).append(one)
    largest = sorted(found, key=lambda name: (-len(found[name]), name))[:_CLASSES]
    return [one for name in largest for one in found[name][:_EACH]]


def test_a_soup_of_runs(in_process: InProcess, tmp_path: Path, records: list[dict[str, str]]) -> None:
    pictures.write(tmp_path / "train.jsonl", [one for place, one in enumerate(records) if place % 3])
    pictures.write(tmp_path / "val.jsonl", [one for place, one in enumerate(records) if not place % 3])
    same = ["--batch-size", "30", "--workers", "1"]

    def train(model: str, out: str, *more: str) -> None:
        done = in_process("train", "train.jsonl", "--model", model, "-o", out, *same, *more)
        assert done.code == 0, done.stderr

    train("tiny-ViT-32", "start", "--steps", "5")
    for name, seed, rate in (("a", "1", "1e-4"), ("b", "2", "5e-4"), ("c", "3", "1e-2")):
        train("./start/model/", name, "--steps", "3", "--seed", seed, "--lr", rate)

    def evaluated(model: str) -> float:
        done = in_process("eval", "classification", "val.jsonl", "--model", model, "--no-cache")
        value: float = json.loads(done.stdout)["figures"]["top1"]["value"]
        return value

    done = in_process("soup", "greedy", "a", "b/", "c/", "--val", "val.jsonl", "-o", "soup")
    assert done.code == 0, done.stderr
    *tried, soup = map(json.loads, done.stdout.splitlines())
    alone = {name: evaluated(f"./{name}/model/") for name in "abc"}
    assert {one["model"]: one["alone"]["value"] for one in tried} == alone
    assert evaluated("./soup/") == soup["soup"]["value"] >= max(alone.values())

    args = ["--target", "val.jsonl", "--others", "train.jsonl", "--sweep", "2"]
    done = in_process("soup", "wise", "start/", "b/", *args, "-o", "wise")
    assert done.code == 0, done.stderr
    *points, made = map(json.loads, done.stdout.splitlines())
    assert points[0]["target"]["value"] == evaluated("./start/model/")
    assert points[-1]["target"]["value"] == alone["b"]
    chosen = next(point for point in points if point["suggested"])
    assert made["alpha"] == chosen["alpha"] and evaluated("./wise/") == chosen["target"]["value"]
