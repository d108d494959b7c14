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

from clipkit.training.distributed import Alone, launched, processes
from tests.training.ranks import CASES

ROOT = Path(__file__).parents[2]


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
