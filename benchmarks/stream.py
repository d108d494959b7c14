"""Records a second of verbs that load no model, against `jq -c .` and a plain Python loop, and of a resume.

    python benchmarks/stream.py [LINES] [DONE] [RUNS]

LINES (1000000) records of about 330 bytes, read from a file in the page cache, written to /dev/null; the median of RUNS
(3) runs of each program, taken in turns. jq is left out where it isn't installed. Resume: `zeroshot -o FILE --resume`
when all DONE (100000) records are in the journal already; nothing is left but to read, to look up and to write them.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from common import CLIPKIT, MB, ROOT, Run, facts, middle, run, runs, scratch, spread, table
from lines import write_lines

CHANGES = ["--value", "split=train", "--drop", "url"]
PYTHON_LOOP = """
import json, sys
for line in open(sys.argv[1], encoding="utf-8"):
    sys.stdout.write(json.dumps(json.loads(line), ensure_ascii=False, separators=(",", ":")) + "\\n")
"""


def main() -> None:
    lines, done, count = (int(word) for word in (sys.argv[1:] + ["1000000", "100000", "3"][len(sys.argv) - 1 :]))
    print(facts("msgspec"), end="\n\n")
    with scratch() as folder:
        measure_verbs(write_lines(folder / "lines.jsonl", lines), lines, count)
        measure_resume(folder, done, count)


def measure_verbs(path: Path, lines: int, count: int) -> None:
    """Print the table of verbs and their peers."""
    commands: dict[str, Sequence[str]] = {
        "`clipkit cat`": [*CLIPKIT, "cat", str(path)],
        "`clipkit head -n N`": [*CLIPKIT, "head", "-n", str(lines), str(path)],
        "`clipkit set --value split=train --drop url`": [*CLIPKIT, "set", *CHANGES, str(path)],
        "Python's json, loads and dumps": [sys.executable, "-c", PYTHON_LOOP, str(path)],
    }
    if jq := shutil.which("jq"):
        commands |= {
            "`jq -c .`": [jq, "-c", ".", str(path)],
            "`jq -c 'del(.url) + {split: \"train\"}'`": [jq, "-c", 'del(.url) + {split: "train"}', str(path)],
        }
    measured = runs(count, commands)
    peer = middle(measured["`jq -c .`" if jq else "Python's json, loads and dumps"])
    rows = [
        [name, spread(found), f"{lines / middle(found).wall:,.0f}", f"{peer.wall / middle(found).wall:.2f}x"]
        for name, found in measured.items()
    ]
    than = "jq -c ." if jq else "Python's json"
    table([f"{lines:,} records", "wall (least-most)", "records/s", f"faster than {than}"], rows)


def measure_resume(folder: Path, done: int, count: int) -> None:
    """Print the table of a run and of resumes that find everything done."""
    photo = str(ROOT / "samples" / "cat.jpg")
    manifest = folder / "done.jsonl"
    manifest.write_text("".join(json.dumps({"id": f"n{n}", "image": photo}) + "\n" for n in range(done)))
    verb = [*CLIPKIT, "zeroshot", str(manifest), "--labels", "cats,dogs", "-o", str(folder / "out.jsonl"), "--resume"]
    found: list[Run] = [run(verb, cache=folder / "cache") for _ in range(count + 1)]
    rows = [
        [name, spread(some), f"{done / middle(some).wall:,.0f}", f"{middle(some).peak / MB:.0f} MB"]
        for name, some in (("one photo again and again, from the cache", found[:1]), ("resume, all done", found[1:]))
    ]
    table([f"{done:,} records of zeroshot", "wall (least-most)", "records/s", "peak memory"], rows)


if __name__ == "__main__":
    main()
