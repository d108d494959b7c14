"""Verbs in a shell's pipe."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
@pytest.mark.parametrize("name", ["-", "/dev/stdout", "/dev/fd/1"])
def test_out_to_stdout_by_name_adds_to_the_file_it_goes_to(name: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    (tmp_path / "a.jsonl").write_text('{"id":"a"}\n')
    with log.open("a") as stdout:
        command = [sys.executable, "-P", "-m", "clipkit", "cat", "a.jsonl", "-o", name]
        subprocess.run(command, cwd=tmp_path, stdout=stdout, check=True, timeout=60)
    assert log.read_text() == 'before\n{"id":"a"}\n'


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_a_reader_that_leaves_stops_the_whole_pipe_quietly(tmp_path: Path) -> None:
    (tmp_path / "many.jsonl").write_text("".join(f'{{"id":"{n}","text":"{"x" * 200}"}}\n' for n in range(50_000)))
    clipkit = f"{shlex.quote(sys.executable)} -P -m clipkit"
    line = (
        f"{clipkit} cat many.jsonl | {clipkit} set --value a=1 | {clipkit} set --value b=2 | head -1;"
        ' echo "${PIPESTATUS[@]}" >statuses'
    )
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (tmp_path / "statuses").read_text().split() == ["141", "141", "141", "0"]
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1 and done.stdout.startswith('{"id":"0",')
