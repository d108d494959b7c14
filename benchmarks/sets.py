"""The verbs that look at a whole set, each as a whole process over 1,000,000 records: seconds and peak memory.

    python benchmarks/sets.py ../shared/data [ROWS]

A feature store of ROWS made unit vectors (as benchmarks/dedup.py makes them) under the name of the carried model, and
records whose captions are those of DATA/alttext (CC3M's validation set), over and over. The second row of each verb is
over a tenth of the records: what grows with the set is the difference.
"""

from __future__ import annotations

import base64
import json
import sys
from itertools import cycle
from pathlib import Path

from common import CLIPKIT, MB, child, facts, run, scratch, table

VERBS = {
    "cluster --k 1000": ["cluster", "RECORDS", "--features", "STORE", "--k", "1000"],
    "prune density": ["prune", "RECORDS", "--features", "STORE", "--method", "density", "--keep-fraction", "0.3"],
    "prune random": ["prune", "RECORDS", "--method", "random", "--keep-fraction", "0.3"],
    "balance --t 2000": ["balance", "RECORDS", "--t", "2000"],
    "decontaminate semantic": [
        *("decontaminate", "RECORDS", "--features", "STORE", "--by", "semantic", "--against", "eval=EVAL"),
    ],
    "concepts count": ["concepts", "count", "RECORDS", "--concepts", "@CONCEPTS"],
}
EVAL_ROWS = 2_000


def make(folder: Path, rows: int, captions: Path) -> None:
    """STORE of the vectors and RECORDS beside it; an eval store of others; a list of concepts."""
    import pyarrow.parquet as pq
    from dedup import made

    from clipkit.features.store import describe_identity
    from clipkit.features.writer import Layout, StoreSink
    from clipkit.models.load import load
    from clipkit.stream.record import encode_json
    from clipkit.text.wordnet import nouns

    identity = load("lite", threads=1).identity
    texts = cycle(pq.read_table(captions).column("text").to_pylist())
    sinks = [
        StoreSink(folder / name, lambda: Layout(describe_identity(identity), {"image": identity.dim}))
        for name in ("store", "eval")
    ]
    with open(folder / "records.jsonl", "wb") as file:
        number = 0
        for block in made(rows + EVAL_ROWS, identity.dim):
            for row in block:
                packed = base64.b64encode(row.astype("<f2").tobytes()).decode()
                record = {"id": f"{number:08d}", "image": f"{number:08d}.jpg"}
                via = {"emb.image": f"embed/{identity}"}
                sinks[number >= rows].write(encode_json(record | {"emb": {"image": packed}, "via": via}), "")
                if number < rows:
                    file.write(encode_json(record | {"text": next(texts)}) + b"\n")
                number += 1
    for sink in sinks:
        sink.commit()
    (folder / "concepts.txt").write_text("\n".join(nouns().lemmas()[::40]) + "\n")


def main() -> None:
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
        print(json.dumps(None))
        return
    data, rows = Path(sys.argv[1]).resolve(), int((sys.argv[2:] or ["1000000"])[0])
    cells = []
    with scratch() as folder:
        for count in (rows // 10, rows):
            (folder / str(count)).mkdir()
            child(__file__, "make", folder / str(count), count, data / "alttext/cc3m_val.parquet")
        print(facts("faiss-cpu", "numpy", "pyahocorasick"), end="\n\n")
        for name, words in VERBS.items():
            for count in (rows, rows // 10):
                here = folder / str(count)
                places = {"RECORDS": "records.jsonl", "STORE": "store", "EVAL": "eval", "CONCEPTS": "concepts.txt"}
                command = [*CLIPKIT, *words, "-q", "-o", str(here / "out.jsonl")]
                for place, file in places.items():
                    command = [word.replace(place, str(here / file)) for word in command]
                one = run(command)
                cells.append(
                    [name, f"{count:,}", f"{one.wall:.1f} s", f"{count / one.wall:,.0f}", f"{one.peak / MB:.0f} MB"]
                )
    table(["verb", "records", "whole", "records a second", "peak memory"], cells)


if __name__ == "__main__":
    main()
