"""Golden cases without code: tests/cases/VERB/NAME/ holds a command, its input, and what must come out.

cmd: a shell line that starts with `clipkit`, run in a copy of the folder, so that other files beside it can be named.
out.jsonl: exactly what it prints. Optional: in.jsonl (its standard input), err (exactly what it says on standard
error), code (its exit status, 0 if absent).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).parent / "cases"
FOUND = sorted(path.parent for path in CASES.glob("*/*/cmd"))


def expected(folder: Path, name: str) -> str | None:
    path = folder / name
    return path.read_bytes().decode() if path.exists() else None


def test_there_are_cases() -> None:
    assert FOUND


@pytest.mark.parametrize("folder", FOUND, ids=lambda folder: str(folder.relative_to(CASES)))
def test_case(folder: Path, tmp_path: Path) -> None:
    here = tmp_path / "case"
    shutil.copytree(folder, here, ignore=shutil.ignore_patterns("cmd", "in.jsonl", "out.jsonl", "err", "code"))
    program = tmp_path / "bin/clipkit"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m clipkit "$@"\n')
    program.chmod(0o755)
    stdin = folder / "in.jsonl"
    done = subprocess.run(
        ["sh", "-c", (folder / "cmd").read_text()],
        input=stdin.read_bytes() if stdin.exists() else b"",
        capture_output=True,
        cwd=here,
        env={**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"},
        timeout=60,
    )
    assert done.stdout.decode() == (expected(folder, "out.jsonl") or ""), done.stderr.decode()
    assert done.returncode == int(expected(folder, "code") or 0), done.stderr.decode()
    err = expected(folder, "err")
    if err is not None:
        assert done.stderr.decode() == err
