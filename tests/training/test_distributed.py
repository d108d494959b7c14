"""Two processes, started by torchrun, against one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from clipkit.training.distributed import Alone, launched, processes
from tests.conftest import Runner
from tests.training.ranks import CASES

ROOT = Path(__file__).parents[2]


TRAIN = ["train", "pairs.jsonl", "--model", "tiny-ViT-32", "--steps", "3", "--batch-size", "6", "--device", "cpu"]


def torchrun(*args: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Two processes of a module. torchrun takes a port that is free."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        *map(str, args),
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=240, check=False)


def test_alone() -> None:
    with processes("cpu") as group:
        assert not launched()
        assert (group.rank, group.world, group.leader) == (0, 1, True)
        rows = torch.ones(2, 3)
        assert group.gather(rows) is rows
        assert group.names(["a"]) == ["a"]
    assert isinstance(group, Alone)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("ranks") / "said.json"
    done = torchrun("tests.training.ranks", out)
    assert not done.returncode, done.stderr
    return msgspec.json.decode(out.read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_those_of_one_process(said: Any, case: str) -> None:
    loss, gradients, largest = said["gradients"][case]
    assert loss < 1e-9
    assert gradients < 1e-9  # in f64
    assert largest > 1e-3


@pytest.mark.slow
def test_what_some_processes_lack(said: Any) -> None:
    assert said["average"] == [[0.5, 0.5], [1.5, 2.5], None]
    assert said["names"] == ["a", "b b"]


@pytest.mark.slow
def test_all_stop_together(said: Any) -> None:
    steps, last, apart = said["stopped"]
    assert (steps, last) == (2, True)
    assert apart < 1e-6
    step, names, finite = said["broken"]
    assert (step, names, finite) == (1, [f"n{number}" for number in range(6)], True)


@pytest.mark.slow
def test_the_verb(tmp_path: Path, clipkit: Runner) -> None:
    """torchrun -m clipkit train: one line on stdout, and weights that are close to those of one process."""
    for number in range(12):
        shade = (number * 20, 255 - number * 20, (number * 70) % 256)
        Image.new("RGB", (32, 32), shade).save(tmp_path / f"{number}.png")
    records = [{"id": f"p{number}", "image": f"{number}.png", "text": f"a picture {number}"} for number in range(12)]
    (tmp_path / "pairs.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, records)))
    alone = clipkit(*TRAIN, "-o", "one", cwd=tmp_path)
    assert alone.code == 0, alone.stderr
    together = torchrun("clipkit", *TRAIN, "-o", "two", cwd=tmp_path)
    assert not together.returncode, together.stderr
    said = msgspec.json.decode(together.stdout)
    assert said["steps"] == 3
    assert said["loss"] == pytest.approx(msgspec.json.decode(alone.stdout)["loss"], abs=1e-4)
    mine, theirs = (load_file(tmp_path / run / "model" / "open_clip_model.safetensors") for run in ("one", "two"))
    assert mine.keys() == theirs.keys()
    assert max(float((value - theirs[name]).abs().max()) for name, value in mine.items()) < 2e-4
    names = [{path.name for path in (tmp_path / run).iterdir()} for run in ("one", "two")]
    assert names[0] == names[1]
