"""Temporary files: where TMPDIR says or not at all, and what is said when there is no room."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from clipkit.errors import ClipkitError
from clipkit.stream.scratch import scratch


def test_what_is_written_can_be_read_and_nothing_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with scratch(16) as file:
        file.write(b"abc" * 100)
        file.seek(3)
        assert file.read(3) == b"abc"
        assert os.fstat(file.fileno()).st_size == 300 and os.fstat(file.fileno()).st_dev == tmp_path.stat().st_dev
        assert list(tmp_path.iterdir()) == []
    assert file.closed


def test_a_tmpdir_that_is_none_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "mistyped"))
    with pytest.raises(ClipkitError, match="/mistyped: no such file or directory"):
        scratch()


@pytest.mark.parametrize("words", [["sample", "-n", "5"], ["join", "in.jsonl"], ["stats"]], ids=" ".join)
def test_no_room_is_said_with_the_folder(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"id": f"r{i}", "v": i}) + "\n" for i in range(70_000)))
    room = tmp_path / "room"
    room.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "clipkit", *words, "in.jsonl"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(room)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"temporary files in {room}: file too large\nhint: TMPDIR=FOLDER moves them\n" in done.stderr
