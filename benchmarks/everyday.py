"""The everyday verbs, in records a second and peak memory, against coreutils, jq and a loop in Python.

    python benchmarks/everyday.py [LINES] [RUNS]

LINES (1000000) records of about 330 bytes from a file in the page cache, output thrown away; the median of RUNS (3)
runs of each program, in turns. coreutils knows no JSON: the pipeline puts the field in front of each line with jq,
sorts with the memory that clipkit allows itself, and cuts it off again. Its memory is that of its largest process, and
`jq -s`, `shuf` and the loop hold everything in theirs. Both are left out where jq isn't installed.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from common import CLIPKIT, MB, facts, middle, runs, scratch, spread, table
from lines import write_lines

PYTHON_SORT = """
import json, sys
lines = open(sys.argv[1], encoding="utf-8").readlines()
lines.sort(key=lambda line: json.loads(line)["scores"]["clip"])
sys.stdout.writelines(lines)
"""


def main() -> None:
    lines, count = (int(word) for word in (sys.argv[1:] + ["1000000", "3"][len(sys.argv) - 1 :]))
    print(facts("msgspec", "numpy"), end="\n\n")
    with scratch() as folder:
        path = write_lines(folder / "lines.jsonl", lines)
        measure("sort by a number", lines, count, sorters(path))
        measure("shuffle", lines, count, shufflers(path))
        measure("others", lines, count, others(path))


def sorters(path: Path) -> dict[str, Sequence[str]]:
    """Programs that sort by scores.clip."""
    commands: dict[str, Sequence[str]] = {
        "`clipkit sort --by scores.clip`": [*CLIPKIT, "sort", "--by", "scores.clip", str(path)],
        "a loop in Python, in memory": [sys.executable, "-c", PYTHON_SORT, str(path)],
    }
    if jq := shutil.which("jq"):
        decorate = f"{jq} -r '\"\\(.scores.clip)\\t\\(tojson)\"' {shlex.quote(str(path))}"
        commands |= {
            "`jq \\| sort -g -S 128M \\| cut`": ["sh", "-c", f"{decorate} | LC_ALL=C sort -g -S 128M | cut -f 2-"],
            "`jq -s 'sort_by(.scores.clip)[]'`": [jq, "-s", "-c", "sort_by(.scores.clip)[]", str(path)],
        }
    return commands


def shufflers(path: Path) -> dict[str, Sequence[str]]:
    """Programs that put records in a random order."""
    return {
        "`clipkit shuffle`": [*CLIPKIT, "shuffle", str(path)],
        "`sort -R -S 128M`": ["sort", "-R", "-S", "128M", str(path)],
        "`shuf`, in memory": ["shuf", str(path)],
    }


def others(path: Path) -> dict[str, Sequence[str]]:
    """The verbs that have no peer of their own; each line joined with itself."""
    verbs = {
        "sample --fraction 0.1": ["sample", "--fraction", "0.1"],
        "sample -n 1000": ["sample", "-n", "1000"],
        "split": ["split"],
        "split --stratify width": ["split", "--stratify", "width"],
        "join": ["join", str(path), "--how", "semi"],
        "stats": ["stats"],
    }
    return {f"`clipkit {name}`": [*CLIPKIT, *words, str(path)] for name, words in verbs.items()}


def measure(what: str, lines: int, count: int, commands: Mapping[str, Sequence[str]]) -> None:
    """Print the table of some programs; the first is what the others are compared with."""
    measured = runs(count, commands)
    first = middle(next(iter(measured.values())))
    rows = [
        [
            name,
            spread(found),
            f"{lines / middle(found).wall:,.0f}",
            f"{middle(found).wall / first.wall:.2f}x",
            f"{middle(found).peak / MB:,.0f} MB",
        ]
        for name, found in measured.items()
    ]
    table([f"{what}, {lines:,} records", "wall (least-most)", "records/s", "time, of the first", "peak memory"], rows)


if __name__ == "__main__":
    main()
