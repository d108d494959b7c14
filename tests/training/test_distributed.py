"""The verb in two processes, started by torchrun, against one. What they compute: test_shares.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from clipkit.training.distributed import Alone, launched, processes
from tests.conftest import InProcess

ROOT = Path(__file__).parents[2]


TRAIN = ["train", "pairs.jsonl", "--model", "tiny-ViT-32", "--steps", "2", "--batch-size", "6", "--device", "cpu"]


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


@pytest.mark.slow
def test_the_verb(tmp_path: Path, in_process: InProcess) -> None:
    """torchrun -m clipkit train: one line on stdout; gradients and weights are those of one process."""
    for number in range(6):
        shade = (number * 40, 255 - number * 40, (number * 70) % 256)
        Image.new("RGB", (32, 32), shade).save(tmp_path / f"{number}.png")
    records = [{"id": f"p{number}", "image": f"{number}.png", "text": f"a picture {number}"} for number in range(6)]
    (tmp_path / "pairs.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, records)))
    alone = in_process(*TRAIN, "-o", "one")
    assert alone.code == 0, alone.stderr
    together = torchrun("clipkit", *TRAIN, "-o", "two", cwd=tmp_path)
    assert not together.returncode, together.stderr
    said = msgspec.json.decode(together.stdout)
    assert said["steps"] == 2
    assert said["loss"] == pytest.approx(msgspec.json.decode(alone.stdout)["loss"], abs=1e-4)
    remembered = [load_file(max(tmp_path.glob(f"{run}/checkpoints/*/training.safetensors"))) for run in ("one", "two")]
    moments = [name for name in remembered[0] if name.endswith("/exp_avg")]  # after two steps 0.09 g1 + 0.1 g2
    assert max(float(remembered[0][name].abs().max()) for name in moments) > 1e-3
    for name in moments:
        torch.testing.assert_close(remembered[1][name], remembered[0][name], rtol=0, atol=1e-6, msg=name)
    mine, theirs = (load_file(tmp_path / run / "model" / "open_clip_model.safetensors") for run in ("one", "two"))
    assert mine.keys() == theirs.keys()
    assert max(float((value - theirs[name]).abs().max()) for name, value in mine.items()) < 2e-4
    names = [{path.name for path in (tmp_path / run).iterdir()} for run in ("one", "two")]
    assert names[0] == names[1]
