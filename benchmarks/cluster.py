"""cluster at scale: time, memory and inertia over made unit vectors, beside faiss with all of them in memory.

    python benchmarks/cluster.py --rows 1000000 --k 1000
    python benchmarks/cluster.py --quality

Vectors: as in benchmarks/dedup.py, a mixture of groups of very unequal size. What is timed is all that comes after the
features: from the rows in their temporary file, as in a run, to each one's cluster.
faiss: Kmeans of as many iterations over all vectors, or over as many of them as our sample, from random centroids; then
a flat index that finds each vector's nearest. inertia: the mean of 1 - cosine to the centroid, the less the better.

--quality: the 24 classes of 960 photos of Caltech-101 in 24 clusters, the mean of five seeds; needs ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from common import CLIPKIT, DATA, child, facts, run, scratch, table
from dedup import made, peak_memory

SEEDS = 5


def ours(rows: int, dim: int, k: int, init: str, passes: int | None) -> dict[str, Any]:
    """clipkit, from the rows in their file to the assignment of each."""
    import faiss  # noqa: F401, before the clock starts, as below
    import numpy as np

    from clipkit.features import kmeans
    from clipkit.features.rows import FeatureRows
    from clipkit.stages.vectors import TICKET
    from clipkit.stream.hashing import ticket
    from clipkit.stream.spool import Rows

    layout, spool = FeatureRows(np.dtype([TICKET]), dim), Rows()
    for some in made(rows, dim):
        for vector in some:
            name = str(len(spool))
            spool.append(name, layout.join(ticket(name, 0, "cluster")[7::-1], vector))
    before, started = peak_memory(), perf_counter()
    order = np.argsort(layout.heads([spool])["ticket"], kind="stable")
    vectors = layout.vectors([spool])
    found = kmeans.cluster(vectors, order, k, model="", by="image", init=init, passes=passes)  # type: ignore[arg-type]
    return {
        "seconds": perf_counter() - started,
        "before": before,
        "peak": peak_memory(),
        "inertia": found.inertia,
        "sample": found.sampled,
        "passes": found.passes,
    }


def theirs(rows: int, dim: int, k: int, iterations: int, sample: int) -> dict[str, Any]:
    """faiss on an array in memory, trained on `sample` of the rows."""
    import faiss
    import numpy as np

    vectors = np.concatenate(list(made(rows, dim)))
    before, started = peak_memory(), perf_counter()
    whole = {"min_points_per_centroid": 1, "max_points_per_centroid": rows}
    kmeans = faiss.Kmeans(dim, k, niter=iterations, spherical=True, seed=1234, **whole)
    kmeans.train(vectors if sample == rows else vectors[np.random.default_rng(1).permutation(rows)[:sample]])
    index = faiss.IndexFlatIP(dim)
    index.add(kmeans.centroids)
    cosine, _ = index.search(vectors, 1)
    seconds = perf_counter() - started
    inertia = float(1 - cosine.astype(np.float64).mean())
    return {"seconds": seconds, "before": before, "peak": peak_memory(), "inertia": inertia}


def speed(rows: int, dim: int, k: int, passes: int | None) -> None:
    """The first table."""
    iterations = child(__file__, "iterations")
    mine = {init: child(__file__, "ours", json.dumps([rows, dim, k, init, passes])) for init in ("k-means++", "random")}
    sample = mine["random"]["sample"]
    found = {f"clipkit cluster, --init {init}": one for init, one in mine.items()}
    found["faiss, trained on all"] = child(__file__, "theirs", json.dumps([rows, dim, k, iterations, rows]))
    if sample < rows:
        on_less = json.dumps([rows, dim, k, iterations, sample])
        found[f"faiss, trained on {sample:,}"] = child(__file__, "theirs", on_less)
    print(facts("faiss-cpu", "numpy"))
    done = mine["random"]["passes"]
    print(f"{rows:,} x {dim}, k {k:,}; a sample of {sample:,}, {iterations} iterations at most, then {done} passes\n")
    whole = found["faiss, trained on all"]["seconds"]
    table(
        ["", "seconds", "faiss on all / this", "inertia", "peak MB", "of it before"],
        [
            [
                name,
                f"{one['seconds']:.1f}",
                f"{whole / one['seconds']:.2f}",
                f"{one['inertia']:.4f}",
                f"{one['peak'] / 1e6:.0f}",
                f"{one['before'] / 1e6:.0f}",
            ]
            for name, one in found.items()
        ],
    )


def quality() -> None:
    """The second table."""
    manifest = DATA / "classification/caltech101/manifest.jsonl"
    variants = {"k-means++": [], "random": ["--init", "random"], "euclidean": ["--euclidean"]}
    cells = []
    with scratch() as folder:
        for name, flags in variants.items():
            outs = [folder / f"{name}-{seed}.jsonl" for seed in range(SEEDS)]
            for seed, out in enumerate(outs):
                more = ["--seed", str(seed), "-o", str(out), "--report", f"{out}.report"]
                run([*CLIPKIT, "cluster", str(manifest), "--k", "24", *flags, *more], cache=folder / "cache")
            figures = child(__file__, "agreement", json.dumps([str(out) for out in outs]))
            cells.append([name, *(f"{figure:.3f}" for figure in figures["made"])])
        cells.append(["the same ids, shuffled", *(f"{figure:.3f}" for figure in figures["shuffled"]), ""])
    print(facts("faiss-cpu", "numpy", "onnxruntime"), end="\n\n")
    table(["", "purity", "NMI", "inertia"], cells)


def agreement(*outs: str) -> dict[str, list[float]]:
    """Means over some outputs: purity, NMI and inertia; and the first two with the clusters' ids shuffled."""
    import numpy as np

    def figures(labels: Any, clusters: Any) -> list[float]:
        joint = np.zeros((labels.max() + 1, clusters.max() + 1))
        np.add.at(joint, (labels, clusters), 1 / len(labels))
        parts = [joint.sum(axis=0), joint.sum(axis=1), joint.ravel()]
        a, b, both = (-(p[p > 0] * np.log(p[p > 0])).sum() for p in parts)
        return [joint.max(axis=0).sum(), 2 * (a + b - both) / (a + b)]

    found, shuffled = [], []
    for out in outs:
        records = [json.loads(line) for line in Path(out).read_text().splitlines()]
        labels = np.unique([record["label"] for record in records], return_inverse=True)[1]
        clusters = np.array([record["cluster"]["id"] for record in records])
        inertia = json.loads(Path(f"{out}.report").read_text())["facts"]["inertia"]
        found.append([*figures(labels, clusters), inertia])
        shuffled.append(figures(labels, np.random.default_rng(0).permutation(clusters)))
    return {"made": np.mean(found, axis=0).tolist(), "shuffled": np.mean(shuffled, axis=0).tolist()}


def iterations() -> int:
    """How many we make on the sample, at most."""
    from clipkit.features.kmeans import ITERATIONS

    return ITERATIONS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--k", type=int, default=1000)
    parser.add_argument("--passes", type=int, help="over all rows; default: what clipkit does")
    parser.add_argument("--quality", action="store_true", help="the classes of real photos instead")
    a = parser.parse_args()
    if a.quality:
        quality()
    else:
        speed(a.rows, a.dim, a.k, a.passes)


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ("ours", "theirs", "agreement", "iterations"):
        print(json.dumps(globals()[sys.argv[1]](*json.loads(sys.argv[2] if sys.argv[2:] else "[]"))))
    else:
        main()
