"""What is shown while no record is stepped."""

from __future__ import annotations

import threading
import time

import pytest

from clipkit.stream import progress
from clipkit.stream.progress import Progress


def test_what_comes_after_the_last_step_is_said_once_it_takes_a_while(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0.01)
    said, until = "", time.monotonic() + 30
    with (
        pytest.raises(KeyboardInterrupt),
        Progress("cluster", None, shown=True) as shown,
        shown.after(lambda: "deciding"),
    ):
        while "cluster: deciding [00:00]" not in said and time.monotonic() < until:
            time.sleep(0.01)
            said += capsys.readouterr().err
        raise KeyboardInterrupt
    assert "cluster: deciding [00:00]" in said
    assert "teller" not in {thread.name for thread in threading.enumerate()}


def test_what_it_is_at_is_said_as_it_changes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0.01)
    said, until, at = "", time.monotonic() + 30, iter(["step 1", "step 2"])
    with Progress("train", None, shown=True) as shown, shown.after(lambda: next(at, "step 3")):
        while "train: step 2" not in said and time.monotonic() < until:
            time.sleep(0.05)
            said += capsys.readouterr().err
    assert "train: step 1" in said and "train: step 2" in said


def test_a_line_is_said_above_what_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0.01)
    said, until = "", time.monotonic() + 30
    with Progress("train", None, shown=True) as shown, shown.after(lambda: "deciding"):
        while "deciding [00:00]" not in said and time.monotonic() < until:
            time.sleep(0.01)
            said += capsys.readouterr().err
        progress.say("a notice")
    assert "\ra notice\n" in capsys.readouterr().err


@pytest.mark.parametrize("shown", [True, False])
def test_nothing_is_said_of_what_is_short_or_not_looked_at(shown: bool, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("cluster", None, shown) as told, told.after(lambda: "deciding"):
        pass
    assert capsys.readouterr().err == ""
