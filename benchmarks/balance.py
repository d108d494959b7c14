"""balance at scale: its matcher against a scan for each entry, and whole runs over a million captions.

    python benchmarks/balance.py [--records 1000000] [--scanned 40] [--rounds 3]

Captions are those of CC3M's validation set (../shared/data/alttext), repeated with new ids; entries are WordNet's
119,034 noun lemmas. Matching: as a run does it, spacing included, against `entry in caption` for each entry on
--scanned captions, in one process on one core; what is found is the same. Runs: whole processes, output thrown away.
Two parts at once: two processes that count, then two that decide.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from time import perf_counter
from typing import Any

from common import CLIPKIT, DATA, MB, ROOT, child, facts, middle, run, runs, scratch, spread, table

CAPTIONS = DATA / "alttext/cc3m_val.parquet"
MATCHING = """
import json, sys
from time import process_time
import pyarrow.parquet as pq
from clipkit.methods.balancers.entries import load_entries, pattern, spaced
texts = pq.read_table(sys.argv[1], columns=["text"])["text"].to_pylist()
scanned = int(sys.argv[2])
entries = load_entries({})
entries.find("")  # builds the automaton
started = process_time()
found = [entries.find(text) for text in texts]
ours = (process_time() - started) / len(texts)
patterns = [pattern(name, unspaced=False) for name in entries.names]
some = texts[:: max(1, len(texts) // scanned)][:scanned]
started = process_time()
naive = [{n for n, wanted in enumerate(patterns) if wanted in said} for said in map(spaced, some)]
theirs = (process_time() - started) / len(some)
assert naive == [entries.find(text) for text in some]
mean = sum(map(len, found)) / len(found)
print(json.dumps({"ours": ours, "theirs": theirs, "captions": len(texts), "scanned": len(some), "entries": mean}))
"""
WRITING = """
import json, sys
import pyarrow.parquet as pq
texts = pq.read_table(sys.argv[1], columns=["text"])["text"].to_pylist()
with open(sys.argv[2], "w") as file:
    for n in range(int(sys.argv[3])):
        record = {"id": f"{n:08}", "image": f"shards/{n // 10000:05}.tar#{n:08}.jpg", "text": texts[n % len(texts)]}
        file.write(json.dumps(record) + "\\n")
"""


def matching(folder: Path, scanned: int) -> None:
    """The matcher against the scan."""
    found: dict[str, Any] = child(written(folder / "matching.py", MATCHING), str(CAPTIONS), scanned)
    rows = [
        ["Aho-Corasick", f"{found['captions']:,}", f"{found['ours'] * 1e6:.1f} us", "1x"],
        [
            "`entry in caption`",
            f"{found['scanned']:,}",
            f"{found['theirs'] * 1e6:,.0f} us",
            f"{found['theirs'] / found['ours']:,.0f}x",
        ],
    ]
    table(["119,034 entries", "captions", "CPU a caption", "takes"], rows)


def whole(folder: Path, records: int, rounds: int) -> None:
    """Runs over all captions."""
    path, counts = folder / "captions.jsonl", folder / "all.counts"
    child(written(folder / "writing.py", WRITING), str(CAPTIONS), str(path), records)
    count = [*CLIPKIT, "balance", "count", str(path)]
    decide = [*CLIPKIT, "balance", str(path), "--t", str(max(1, records // 50_000))]
    run([*count, "-o", str(counts)])
    found = runs(
        rounds,
        {
            "`balance --t`": decide,
            "`balance --keep-fraction 0.3`": [*decide[:-2], "--keep-fraction", "0.3"],
            "`balance count`": count,
            "`balance --counts`": [*decide, "--counts", str(counts)],
            "`balance --plan --counts`": [*CLIPKIT, "balance", "--plan", "--counts", str(counts)],
        },
    )
    rows = [
        [name, spread(some), f"{middle(some).cpu:.1f} s", f"{middle(some).peak / MB:,.0f} MB"]
        for name, some in found.items()
    ]
    parts = [[*count, "--shard", f"{part}/2", "-o", str(folder / f"{part}.counts")] for part in (1, 2)]
    given = [word for part in (1, 2) for word in ("--counts", str(folder / f"{part}.counts"))]
    seconds = at_once(parts) + at_once([[*decide, *given, "--shard", f"{part}/2"] for part in (1, 2)])
    rows.append(["count and decide, two parts at once", f"{seconds:.2f} s", "", ""])
    table([f"{records:,} captions", "wall (least-most)", "CPU", "peak memory"], rows)


def at_once(commands: list[list[str]]) -> float:
    """The seconds until all have ended. Raises RuntimeError if one fails."""
    started = perf_counter()
    processes = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) for command in commands]
    codes = [process.wait() for process in processes]
    if any(codes):
        raise RuntimeError(json.dumps(commands))
    return perf_counter() - started


def written(path: Path, script: str) -> str:
    path.write_text(script)
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--scanned", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print(facts("pyahocorasick", "msgspec"), end="\n\n")
    with scratch() as folder:
        matching(folder, asked.scanned)
        whole(folder, asked.records, asked.rounds)


if __name__ == "__main__":
    main()
