"""CPU time before any work: what the dispatcher, a verb's help and a verb without a model cost.

    python benchmarks/startup.py [RUNS]

The least and the median of RUNS (15) runs of a whole process, user and system time, taken in turns.
"""

from __future__ import annotations

import sys
from statistics import median

from common import CLIPKIT, Run, facts, runs, table

COMMANDS = {
    "`python -c pass`": [sys.executable, "-c", "pass"],
    "`python -c 'import typer'`": [sys.executable, "-c", "import typer"],
    "`clipkit --version`": [*CLIPKIT, "--version"],
    "`clipkit --help`": [*CLIPKIT, "--help"],
    "`clipkit zeroshot --help`": [*CLIPKIT, "zeroshot", "--help"],
    "`clipkit head < /dev/null`": [*CLIPKIT, "head"],
}


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    print(facts("typer"), end="\n\n")
    runs(1, COMMANDS)  # bytecode and the page cache
    measured = runs(count, COMMANDS)
    bare = least(measured["`python -c pass`"])
    rows = []
    for name, found in measured.items():
        lowest, usual = least(found), median(one.cpu for one in found)
        rows.append([name, f"{1e3 * lowest:.0f} ms", f"{1e3 * usual:.0f} ms", f"{lowest / bare:.1f}x"])
    table(["command", "least CPU", "median CPU", "of a bare interpreter"], rows)
    print("Limit for `clipkit --help`: 120 ms.")


def least(found: list[Run]) -> float:
    return min(one.cpu for one in found)


if __name__ == "__main__":
    main()
