"""`clipkit filter` against jq, miller and DuckDB: one condition on three fields, whole processes.

    python benchmarks/filter.py [LINES] [RUNS]

LINES (500000) records of about 290 bytes, read from a file in the page cache, written to /dev/null; the median of RUNS
(5) runs of each program, taken in turns. Peers are left out where they aren't installed. DuckDB reads and writes JSON
lines with all its threads; it parses every field, and writes each record anew.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Sequence

from common import CLIPKIT, MB, facts, middle, runs, scratch, spread, table
from lines import write_lines

WHERE = "scores.clip > 0.3 and min(width, height) >= 200"
JQ = "select(.scores.clip > 0.3 and ([.width, .height] | min) >= 200)"
MILLER = 'filter $scores["clip"] > 0.3 && min($width, $height) >= 200'
MSGSPEC = """
import sys, msgspec
class Scores(msgspec.Struct):
    clip: float
class Row(msgspec.Struct):
    width: int
    height: int
    scores: Scores
decode, write = msgspec.json.Decoder(Row).decode, sys.stdout.buffer.write
for line in open(sys.argv[1], "rb"):
    row = decode(line)
    if row.scores.clip > 0.3 and min(row.width, row.height) >= 200:
        write(line)
"""
DUCKDB = """
import sys, duckdb
duckdb.sql(
    "copy (select * from read_json(?, format='newline_delimited')"
    " where scores.clip > 0.3 and least(width, height) >= 200) to '/dev/null' (format json)",
    params=[sys.argv[1]],
)
"""


def main() -> None:
    lines, count = (int(word) for word in (sys.argv[1:] + ["500000", "5"][len(sys.argv) - 1 :]))
    print(facts("msgspec"), end="\n\n")
    with scratch() as folder:
        path = str(write_lines(folder / "lines.jsonl", lines))
        commands: dict[str, Sequence[str]] = {
            "`clipkit filter`": [*CLIPKIT, "filter", path, "--where", WHERE],
            "`clipkit filter`, top 30 %": [*CLIPKIT, "filter", path, "--top-fraction", "0.3", "--by", "scores.clip"],
            "a bare msgspec loop": [sys.executable, "-c", MSGSPEC, path],
        }
        if jq := shutil.which("jq"):
            commands["jq"] = [jq, "-c", JQ, path]
        if miller := shutil.which("mlr"):
            commands["miller"] = [miller, "--ijsonl", "--ojsonl", *MILLER.split(" ", 1), path]
        if importlib.util.find_spec("duckdb"):
            commands["DuckDB"] = [sys.executable, "-c", DUCKDB, path]
        found = runs(count, commands)
    ours = middle(found["`clipkit filter`"])
    rows = [
        [
            name,
            spread(some),
            f"{middle(some).cpu:.2f} s",
            f"{lines / middle(some).wall:,.0f}",
            f"{middle(some).peak / MB:.0f} MB",
            f"{middle(some).wall / ours.wall:.1f}x",
        ]
        for name, some in found.items()
    ]
    table([f"{lines:,} records", "wall (least-most)", "CPU", "records/s", "peak memory", "takes"], rows)


if __name__ == "__main__":
    main()
