"""Which checkpoints there are, and which go."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from clipkit.training import checkpoints
from clipkit.training.session import Session


def test_the_newest_is_that_of_the_last_step(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path / "none") is None
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = tmp_path / "checkpoints"
    for name in ("step-00000007", "step-99999999", "step-100000000", "step-0000000000000300", "step-x", ".step-1"):
        (folder / name).mkdir(parents=True)
    (folder / "step-200000000").symlink_to(elsewhere)
    newest = checkpoints.newest(folder)
    assert newest is not None and newest.name == "step-100000000"
    checkpoints._remove_old(folder, 2)
    left = {path.name for path in folder.iterdir()}
    assert {"step-99999999", "step-100000000", "step-200000000"} < left and "step-00000007" not in left
    assert elsewhere.is_dir()


def test_the_time_left_may_be_days() -> None:
    told: list[str] = []
    settings = SimpleNamespace(steps=1000, batch_size=4)
    run: Any = SimpleNamespace(
        trainer=SimpleNamespace(settings=settings), _start=0, _began=time.monotonic(), loss=1.0, say=told.append
    )
    Session._tell(run, 10, run._began + 1000)
    assert told == ["step 10 of 1,000, loss 1.000, 0 samples/s, 1 day, 3:30:00 left"]
