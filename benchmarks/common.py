"""What the benchmarks share: commands timed as whole processes, tables in Markdown, the facts of the machine.

A benchmark's own process must stay small, so everything heavy (numpy, torch, PIL) runs in children: on Linux a child's
peak memory counts from the size that its parent had when it was started.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
CLIPKIT = [str(Path(sysconfig.get_path("scripts"), "clipkit"))]
MB = 1e6
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes


@dataclass(frozen=True)
class Run:
    """One process from its start to its end. wall, cpu: seconds; cpu is user and system time. peak: bytes resident."""

    wall: float
    cpu: float
    peak: float


def run(command: Sequence[str], *, stdin: Path | None = None, cache: Path | None = None, ok: int = 0) -> Run:
    """Run a command in the project's folder, output thrown away. Raises RuntimeError if it doesn't exit with `ok`.

    stdin: a file. cache: clipkit's feature cache; by default an empty place, so that no cache of the user's is touched.
    """
    with tempfile.TemporaryFile() as errors, open(stdin or os.devnull, "rb") as given:
        started = perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=_environment(cache), stdin=given, stdout=subprocess.DEVNULL, stderr=errors
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != ok:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip()
            raise RuntimeError(f"exit code {process.returncode} from {' '.join(command)}\n{said}")
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _MAXRSS_UNIT)


def runs(count: int, commands: Mapping[str, Sequence[str]], **how: Any) -> dict[str, list[Run]]:
    """Each command `count` times, in turns, so that what the machine does meanwhile falls on all of them."""
    found: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(count):
        for name, command in commands.items():
            found[name].append(run(command, **how))
    return found


def middle(some: Iterable[Run]) -> Run:
    """The median of each figure."""
    some = list(some)
    return Run(median(r.wall for r in some), median(r.cpu for r in some), median(r.peak for r in some))


def spread(some: Iterable[Run], unit: str = "s") -> str:
    """The median wall time with its least and most: `0.41 s (0.40-0.44)`."""
    walls = [r.wall for r in some]
    return f"{median(walls):.2f} {unit} ({min(walls):.2f}-{max(walls):.2f})"


def child(script: str, *arguments: str | int | Path) -> Any:
    """What a Python script of its own process prints as JSON."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, env=_environment(None), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout or "null")


def _environment(cache: Path | None) -> dict[str, str]:
    """This process's environment without settings of clipkit's."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CLIPKIT_")}
    return inherited | {"CLIPKIT_CACHE": str(cache or os.devnull)}


@contextmanager
def scratch() -> Iterator[Path]:
    """A temporary folder."""
    with tempfile.TemporaryDirectory(prefix="clipkit-benchmark-") as folder:
        yield Path(folder)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def facts(*packages: str) -> str:
    """One line on the machine and the versions that matter."""
    load = f"load before {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
    return ", ".join([f"{_processor()}, {cores()} cores", platform.system(), *versions, load])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a Markdown table."""
    for cells in (header, ["---"] * len(header), *rows):
        print("| " + " | ".join(cells) + " |", flush=True)
    print(flush=True)
