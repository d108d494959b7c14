"""CPU time before any work: what the dispatcher, a verb's help and a verb without a model cost.

    python benchmarks/startup.py

Prints the least of several runs, user and system time of the child process, and the ratio to a bare interpreter.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys

RUNS = 15
CLIPKIT = [sys.executable, "-m", "clipkit"]
CASES = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import typer'": [sys.executable, "-c", "import typer"],
    "clipkit --version": [*CLIPKIT, "--version"],
    "clipkit --help": [*CLIPKIT, "--help"],
    "clipkit zeroshot --help": [*CLIPKIT, "zeroshot", "--help"],
    "clipkit head < /dev/null": [*CLIPKIT, "head"],
}


def cpu_seconds(command: list[str], env: dict[str, str]) -> float:
    """User and system time of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("CLIPKIT_")}
    least = {name: min(cpu_seconds(command, env) for _ in range(RUNS)) for name, command in CASES.items()}
    bare = least["python -c pass"]
    for name, seconds in least.items():
        print(f"{name:<26} {seconds * 1000:4.0f} ms  {seconds / bare:4.1f}x")


if __name__ == "__main__":
    main()
