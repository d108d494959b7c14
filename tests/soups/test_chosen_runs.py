"""Soups of real runs of `clipkit train`: from one start, on emoji, with different seeds and rates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import load_file

from clipkit.models.load import load
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


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "open_clip_model.safetensors")
    return found


def test_soups_of_runs(in_process: InProcess, tmp_path: Path, records: list[dict[str, str]]) -> None:
    pictures.write(tmp_path / "train.jsonl", [one for place, one in enumerate(records) if place % 3])
    pictures.write(tmp_path / "val.jsonl", [one for place, one in enumerate(records) if not place % 3])
    same = ["--batch-size", "30", "--workers", "1"]

    def said(*args: str) -> list[dict[str, Any]]:
        done = in_process(*args)
        assert done.code == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def train(model: str, out: str, *more: str) -> None:
        said("train", "train.jsonl", "--model", model, "-o", out, *same, *more)

    train("tiny-ViT-32", "start", "--steps", "5")
    train("./start/model/", "a", "--steps", "3", "--seed", "1", "--lr", "1e-4", "--lock-image")
    train("./start/model/", "b", "--steps", "3", "--seed", "2", "--lr", "5e-4", "--checkpoint-every", "2")

    def evaluated(model: str) -> float:
        (run,) = said("eval", "classification", "val.jsonl", "--model", model, "--no-cache")
        value: float = run["figures"]["top1"]["value"]
        return value

    *tried, soup = said("soup", "greedy", "a", "b/", "--val", "val.jsonl", "-o", "soup")
    alone = {name: evaluated(f"./{name}/model/") for name in "ab"}
    assert {one["model"]: one["alone"]["value"] for one in tried} == alone
    assert evaluated("./soup/") == soup["soup"]["value"] >= max(alone.values())

    args = ["--target", "val.jsonl", "--others", "train.jsonl", "--sweep", "2"]
    *points, made = said("soup", "wise", "start/", "b/", *args, "-o", "wise")
    assert points[0]["target"]["value"] == evaluated("./start/model/")
    assert points[-1]["target"]["value"] == alone["b"]
    chosen = next(point for point in points if point["suggested"])
    assert made["alpha"] == chosen["alpha"] and evaluated("./wise/") == chosen["target"]["value"]

    (mean,) = said("soup", "uniform", "a/", "b/", "-o", "mean")
    assert sorted(term["model"] for term in mean["terms"]) == ["a", "b"]
    start, one, two = (tensors(tmp_path / name / "model") for name in ("start", "a", "b"))
    for name, value in tensors(tmp_path / "mean").items():
        np.testing.assert_allclose(value, (one[name].double() + two[name].double()) / 2, rtol=2**-23, err_msg=name)
    said("soup", "task", "start/", "--add", "a/", "--scale", "0.5", "-o", "half")
    half = tensors(tmp_path / "half")
    assert all(torch.equal(half[name], start[name]) for name in start if name.startswith("visual.")), "it was locked"
    assert not all(torch.equal(half[name], start[name]) for name in start)
    for out, flags, expected in (("whole", ["--add", "b/"], "b"), ("gone", ["--negate", "start/"], "start")):
        (task,) = said("soup", "task", "start/", *flags, "-o", out)
        assert task["weights"] == load(f"{tmp_path}/{expected}/model/").identity.weights
    checkpoints = sorted(f"./b/checkpoints/{path.name}/" for path in (tmp_path / "b/checkpoints").iterdir())
    (over,) = said("soup", "uniform", *checkpoints, "-o", "over")
    assert {term["model"] for term in over["terms"]} <= {"b/step-00000002", "b/step-00000003"}
    plain = open_clip.create_model(f"local-dir:{tmp_path / 'mean'}")
    assert torch.equal(plain.logit_scale.detach(), tensors(tmp_path / "mean")["logit_scale"])
    (answer,) = said("zeroshot", records[0]["image"], "--labels", "cat,dog", "--model", "./mean/")
    assert answer["pred"]["label"] in ("cat", "dog")
