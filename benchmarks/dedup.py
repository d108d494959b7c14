"""dedup at scale: time, memory and recall over made unit vectors, beside faiss doing the search alone.

    python benchmarks/dedup.py --rows 1000000
    python benchmarks/dedup.py --rows 100000 --flat 5000

Vectors: a mixture of clusters of very unequal size; one in twenty is a near-duplicate of another, at a cosine drawn
evenly from .95 to .999. What is timed is all that comes after the features: clusters, pairs, the rule, the audit. The
rows lie in a temporary file, as they do in a run.
faiss flat: an exact search for --flat rows among all, times rows / flat. faiss IVF: as many lists as dedup has
clusters, and as many probes as it takes for the recall that dedup reached. Both hold all vectors in memory.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
from collections.abc import Iterator
from time import perf_counter
from typing import Any

from common import child, facts, table

PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)


def peak_memory() -> float:
    """The most bytes that this process has held resident."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)


def made(rows: int, dim: int) -> Iterator[Any]:
    """Unit vectors f32, in blocks."""
    import numpy as np

    rng = np.random.default_rng(0)
    centres = rng.standard_normal((max(rows // 300, 4), dim), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    weights = rng.pareto(1.2, len(centres)) + 0.1
    chosen = rng.choice(len(centres), rows, p=weights / weights.sum())
    for start in range(0, rows, 8192):
        some = centres[chosen[start : start + 8192]]
        some += rng.standard_normal(some.shape, dtype=np.float32) * np.float32(1.5 / math.sqrt(dim))
        some /= np.linalg.norm(some, axis=1, keepdims=True)
        if copies := len(some) // 20:  # of the first, in the place of the last
            aside = rng.standard_normal((copies, dim), dtype=np.float32)
            aside -= (aside * some[:copies]).sum(axis=1, keepdims=True) * some[:copies]
            aside /= np.linalg.norm(aside, axis=1, keepdims=True)
            cosine = rng.uniform(0.95, 0.999, (copies, 1)).astype(np.float32)
            some[-copies:] = cosine * some[:copies] + np.sqrt(1 - cosine**2) * aside
        yield some


def ours(rows: int, dim: int, eps: float, audit: int) -> dict[str, Any]:
    """dedup, from the rows in their file to the verdict."""
    from clipkit.methods.dedupers.references import References
    from clipkit.methods.dedupers.table import Table
    from clipkit.stages.dedup import Dedup
    from clipkit.stream.spool import Rows

    stage = Dedup({"by": ["semantic"], "eps": eps, "audit": audit})
    stage.table = Table(stage.methods, dim)
    stage.references = References([], stage.methods, stage.table, None, None, None)
    spool = Rows()
    for some in made(rows, dim):
        for vector in some:
            spool.append(str(len(spool)), stage.table.pack(math.nan, [b""], vector))
    before, started = peak_memory(), perf_counter()
    stage.learn(spool)
    return {"seconds": perf_counter() - started, "before": before, "peak": peak_memory(), **stage.facts}


def theirs(rows: int, dim: int, eps: float, asked: int, lists: int, recall: float) -> dict[str, Any]:
    """faiss: all pairs over a cosine, exactly and by inverted lists; seconds for all rows, from those for a part."""
    import faiss
    import numpy as np

    vectors = np.concatenate(list(made(rows, dim)))
    some = vectors[np.random.default_rng(1).choice(rows, min(asked, rows), replace=False)]
    flat = faiss.IndexFlatIP(dim)
    flat.add(vectors)
    started = perf_counter()
    pairs = int(flat.range_search(some, 1 - eps)[0][-1]) - len(some)  # each finds itself
    seconds = {"flat": (perf_counter() - started) * rows / len(some)}
    del flat
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
    started = perf_counter()
    index.train(vectors[: 32 * lists])
    index.add(vectors)
    built = perf_counter() - started
    for probes in PROBES:
        index.nprobe = min(probes, lists)
        started = perf_counter()
        found = int(index.range_search(some, 1 - eps)[0][-1]) - len(some)
        seconds["ivf"] = built + (perf_counter() - started) * rows / len(some)
        if found >= recall * pairs:
            break
    return {**seconds, "probes": probes, "recall": found / max(pairs, 1), "peak": peak_memory()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--eps", type=float, default=0.05)
    parser.add_argument("--audit", type=int, default=2000, help="vectors compared with all")
    parser.add_argument("--flat", type=int, default=2000, help="rows that faiss searches for")
    a = parser.parse_args()
    here = child(__file__, "ours", json.dumps([a.rows, a.dim, a.eps, a.audit]))
    recall = here["audit"]["recall"]
    there = child(__file__, "theirs", json.dumps([a.rows, a.dim, a.eps, a.flat, here["k"], recall]))
    print(facts("faiss-cpu", "numpy"))
    print(f"{a.rows:,} x {a.dim}, cosine over {1 - a.eps:g}, k {here['k']}, assign {here['assign']}")
    print(f"kept by rule: {here['kept_by_rule']}; peak before the search {here['before'] / 1e6:.0f} MB\n")

    def row(name: str, seconds: float, found: float, peak: float) -> list[str]:
        return [name, f"{seconds:.1f}", f"{seconds / here['seconds']:.2f}", f"{found:.4f}", f"{peak / 1e6:.0f}"]

    table(
        ["", "seconds", "ratio", "recall", "peak MB"],
        [
            row("dedup", here["seconds"], recall, here["peak"]),
            row(f"faiss IVF, {there['probes']} probes", there["ivf"], there["recall"], there["peak"]),
            row("faiss flat", there["flat"], 1, there["peak"]),
        ],
    )


if __name__ == "__main__":
    if sys.argv[1:2] in (["ours"], ["theirs"]):
        print(json.dumps(globals()[sys.argv[1]](*json.loads(sys.argv[2]))))
    else:
        main()
