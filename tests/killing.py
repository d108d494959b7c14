"""A verb that is killed while it works: what its `--resume` is tested with."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def killed(args: Sequence[str | Path], given: str, cwd: Path, *, after: int) -> None:
    """Run `clipkit ARGS -o out.jsonl` in a folder, and kill it (SIGKILL) once its journal holds `after` bytes.

    given: the first lines of its standard input; it waits for more when it is killed.
    """
    command = [sys.executable, "-P", "-m", "clipkit", *map(str, args), "-o", "out.jsonl"]
    journal = cwd / "out.jsonl.journal"
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=cwd, stderr=subprocess.DEVNULL) as process:
        assert process.stdin
        process.stdin.write(given.encode())
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not (journal.exists() and journal.stat().st_size > after):
            assert time.monotonic() < deadline and process.poll() is None, "nothing was journalled"
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert not (cwd / "out.jsonl").exists()
