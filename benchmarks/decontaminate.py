"""decontaminate: what it finds of pictures that are known to overlap, and what it costs at scale.

    python benchmarks/decontaminate.py quality                       # Markdown tables
    python benchmarks/decontaminate.py quality --model ViT-B-32:laion2b_s34b_b79k
    python benchmarks/decontaminate.py scale --rows 1000000 --references 50000

quality, by transform: neardup/made, 36 photos as the benchmark; the pool is ten copies of each, and unrelated pictures:
those of Caltech-101 and the recipes. Found: the copy has a pair with its original. False: records that are in a pair
with anything else.
quality, against people: CIFAR-10, the test pictures as the benchmark, the train pictures as the pool, both those of the
manifest. Pairs: precision and recall of pairs against those that people called near or similar. Records: of the train
pictures that are in such a pair.
scale: made digests and made unit vectors; one record in a hundred is a copy, some bits or a small angle off. The whole
command is timed, from its start to the last byte written. faiss: range_search of a flat index over the same vectors, in
blocks of 1,024 queries, all in memory; the search alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from common import CLIPKIT, DATA, MB, child, facts, run, scratch, table

METHODS = (
    ("bytes", ()),
    ("pixels", ()),
    ("phash", ("--hamming", "4")),
    ("phash", ("--hamming", "6")),
    ("phash", ("--hamming", "8")),
    ("phash", ("--hamming", "10")),
    ("dhash", ("--hamming", "4")),
    ("dhash", ("--hamming", "6")),
    ("semantic", ("--eps", "0.03")),
    ("semantic", ("--eps", "0.05")),
    ("semantic", ("--eps", "0.08")),
    ("semantic", ("--eps", "0.1")),
    ("semantic", ("--eps", "0.12")),
    ("semantic", ("--eps", "0.15")),
    ("bytes,phash,semantic", ()),
    ("bytes,phash,semantic", ("--hamming", "10")),
)
EPS = 0.1
UNRELATED = ("classification/caltech101/manifest.jsonl", "captions/recipes/pairs.jsonl")


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def overlaps(folder: Path, by: str, more: tuple[str, ...]) -> set[tuple[str, str]]:
    """The pairs (record, item) that a run finds of pool.jsonl and eval.jsonl in a folder."""
    pairs = folder / "overlaps.jsonl"
    command = [*CLIPKIT, "decontaminate", "pool.jsonl", "--against", "eval.jsonl", "--by", by, *more, "-q"]
    run(["sh", "-c", 'cd "$0" && exec "$@"', str(folder), *command, "--overlaps", str(pairs)], cache=folder / "cache")
    return {(pair["id"], pair["match"]) for pair in read(pairs)}


def named(by: str, more: tuple[str, ...]) -> str:
    return " ".join([f"`{by}`", *more[:2]]).replace("--", "")


def by_transform(model: tuple[str, ...]) -> None:
    """Percent of copies found by transform, and the records that are falsely in a pair."""
    records = [r for r in read(DATA / "neardup/manifest.jsonl") if r["image"].startswith("made/")]
    group = {record["id"]: record["group"] for record in records}
    pool = [record for record in records if record["transform"] != "original"]
    transforms = list(dict.fromkeys(record["transform"] for record in pool))
    unrelated = []
    for manifest in UNRELATED:
        path = DATA / manifest
        unrelated += [
            {"id": f"{path.parent.name}/{r['id']}", "image": str(path.parent / r["image"])} for r in read(path)
        ]
    rows = []
    with scratch() as folder:
        place = {"eval.jsonl": [record for record in records if record["transform"] == "original"], "pool.jsonl": pool}
        for name, some in place.items():
            absolute = [{"id": r["id"], "image": str(DATA / "neardup" / r["image"])} for r in some]
            write(folder / name, absolute + (unrelated if name == "pool.jsonl" else []))
        for by, more in METHODS:
            pairs = overlaps(folder, by, more + (model if "semantic" in by else ()))
            found = {record for record, match in pairs if group.get(record) == group[match]}
            false = {record for record, match in pairs if group.get(record) != group[match]}
            count = Counter(record["transform"] for record in pool if record["id"] in found)
            shares = [f"{100 * count[name] / sum(r['transform'] == name for r in pool):.0f}" for name in transforms]
            rows.append([named(by, more), *shares, str(len(false))])
    print(f"{len(unrelated):,} unrelated pictures\n")
    table(["method", *transforms, "false"], rows)


def against_people(model: tuple[str, ...]) -> None:
    """Precision and recall of pairs and of records, against the pairs that people judged."""
    home = DATA / "classification/cifar10"
    records = read(home / "manifest.jsonl")
    of = {record["image"]: record for record in records}
    truth = set()
    for pair in read(home / "near_duplicates.jsonl"):
        one, other = of[pair["a"]], of[pair["b"]]
        if one["split"] != other["split"]:
            truth.add((one["id"], other["id"]) if one["split"] == "train" else (other["id"], one["id"]))
    leaked = {record for record, _ in truth}
    rows = []
    with scratch() as folder:
        for name, split in (("pool.jsonl", "train"), ("eval.jsonl", "test")):
            some = [record for record in records if record["split"] == split]
            write(folder / name, [{"id": r["id"], "image": str(home / r["image"])} for r in some])
        for by, more in METHODS:
            pairs = overlaps(folder, by, more + (model if "semantic" in by else ()))
            dropped = {record for record, _ in pairs}
            right, hit = len(pairs & truth), len(dropped & leaked)
            row = [named(by, more), f"{len(pairs)}", share(right, len(pairs)), share(right, len(truth))]
            rows.append([*row, f"{len(dropped)}", share(hit, len(dropped)), share(hit, len(leaked))])
    print(f"{len(truth)} pairs judged, of {len(leaked)} records\n")
    table(["method", "pairs", "precision", "recall", "records", "precision", "recall"], rows)


def share(part: int, whole: int) -> str:
    return f"{part / whole:.2f}" if whole else ""


def vectors(rows: int, dim: int, seed: int, copied: int = 0) -> Iterator[Any]:
    """Unit vectors f32 in blocks; of the rows one in a hundred is near one of the first `copied` of seed 0."""
    import numpy as np

    rng = np.random.default_rng(seed)
    originals = next(vectors(copied, dim, 0)) if copied else None
    for start in range(0, rows, 8192):
        some = rng.standard_normal((min(8192, rows - start), dim), dtype=np.float32)
        if originals is not None:
            few = np.arange(0, len(some), 100)
            length = np.float32(0.3 / dim**0.5)
            some[few] = originals[rng.integers(0, len(originals), len(few))] + length * some[few]
        yield some / np.linalg.norm(some, axis=1, keepdims=True)


def make(folder: Path, rows: int, references: int, dim: int) -> None:
    """pool.jsonl and eval.jsonl with digests; the feature stores pool/ and eval/, said to be of `lite`."""
    import numpy as np

    from clipkit.features.inline import pack
    from clipkit.features.store import describe_identity
    from clipkit.features.writer import Layout, StoreSink
    from clipkit.models.load import load

    identity = describe_identity(load("lite").identity)
    rng = np.random.default_rng(2)
    originals = rng.integers(0, 2**64, references, dtype=np.uint64)
    for name, count, seed in (("eval", references, 0), ("pool", rows, 1)):
        codes = originals if name == "eval" else rng.integers(0, 2**64, rows, dtype=np.uint64)
        if name == "pool":
            few = np.arange(0, rows, 100)
            flips = (np.uint64(1) << rng.integers(0, 64, (len(few), 5), dtype=np.uint64)).sum(axis=1, dtype=np.uint64)
            codes[few] = originals[rng.integers(0, references, len(few))] ^ flips
        with open(folder / f"{name}.jsonl", "w") as file:
            for number, code in enumerate(codes.tolist()):
                said = {"id": f"{name}-{number}", "phash": f"{code:016x}", "via": {"phash": "hash"}}
                file.write(json.dumps(said) + "\n")
        sink = StoreSink(str(folder / name), lambda: Layout(identity, {"image": dim}))
        number = 0
        for block in vectors(count, dim, seed, min(references, 8192) * (name == "pool")):
            for row in block:
                sink.write(json.dumps({"id": f"{name}-{number}", "emb": {"image": pack(row)}}).encode(), "")
                number += 1
        sink.commit()


def peer(folder: Path) -> dict[str, float]:
    """faiss over the same vectors: seconds of the search alone, and how many records have a pair."""
    import faiss
    import numpy as np

    from clipkit.features.store import Store

    items = np.concatenate([rows for _, rows in Store(folder / "eval").blocks("image")])
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)
    seconds, met = 0.0, 0
    for _, rows in Store(folder / "pool").blocks("image", 1024):
        started = perf_counter()
        limits, _, _ = index.range_search(rows, 1 - EPS)
        seconds += perf_counter() - started
        met += int((np.diff(limits) > 0).sum())
    return {"seconds": seconds, "records": met}


def scale(rows: int, references: int) -> None:
    """Whole commands over made records."""
    print(facts("numpy", "faiss-cpu") + f"; {rows:,} records, {references:,} items\n")
    with scratch() as folder:
        dim = child(__file__, "make", folder, rows, references)
        against = ["--against", str(folder / "eval.jsonl"), "--by", "phash"]
        commands = {
            "phash, from digests": [str(folder / "pool.jsonl"), *against],
            f"semantic, from a store, {dim} dimensions": [
                *("--features", str(folder / "pool"), "--against", str(folder / "eval"), "--by", "semantic"),
                *("--eps", str(EPS)),
            ],
        }
        found = []
        for name, words in commands.items():
            report = folder / "report.json"
            timed = run([*CLIPKIT, "decontaminate", *words, "-q", "--report", str(report)])
            dropped = json.loads(report.read_text())["counts"]["dropped"]
            found.append([name, f"{timed.wall:.1f}", f"{timed.peak / MB:.0f}", f"{dropped:,}", timed.wall])
        theirs = child(__file__, "peer", folder)
        table(["method", "seconds", "peak MB", "records dropped"], [row[:4] for row in found])
        ratio = found[1][4] / theirs["seconds"]
        print(
            f"faiss range_search: {theirs['seconds']:.1f} s for {theirs['records']:,} records; ours / faiss {ratio:.2f}"
        )


def main() -> None:
    if sys.argv[1:2] == ["make"]:
        from clipkit.models.load import load

        dim = load("lite").identity.dim
        make(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), dim)
        print(json.dumps(dim))
        return
    if sys.argv[1:2] == ["peer"]:
        print(json.dumps(peer(Path(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["quality", "scale"])
    parser.add_argument("--model", default="lite")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--references", type=int, default=50_000)
    asked = parser.parse_args()
    if asked.what == "scale":
        scale(asked.rows, asked.references)
        return
    by_transform(("--model", asked.model))
    against_people(("--model", asked.model))


if __name__ == "__main__":
    main()
