"""`clipkit search` over a feature store: rows a second and peak memory, and how both grow with the store.

    python benchmarks/search.py [ROWS] [ROUNDS]

Stores of ROWS (100,000) random unit rows and of a tenth of that, as wide as the carried model's; the query is a text.
The verb runs from its start to its end (`whole`); on a store of one row it shows what that costs without a search
(imports, loading the model, encoding the query); `rows a second` leaves that out.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common import CLIPKIT, MB, child, facts, middle, run, scratch, spread, table

HEADER = ("store", "whole", "without start", "rows a second", "peak memory", "above start")


def main() -> None:
    if sys.argv[1:2] == ["make"]:
        make(Path(sys.argv[2]), int(sys.argv[3]))
        return
    count, rounds = (int(word) for word in [*sys.argv[1:3], *["100000", "5"][len(sys.argv[1:3]) :]])
    print(facts("numpy", "onnxruntime", "pyarrow"), end="\n\n")
    with scratch() as folder:
        found = {}
        for rows in (1, count // 10, count):
            child("benchmarks/search.py", "make", folder / str(rows), rows)
            command = [*CLIPKIT, "search", "a red bus", "--features", str(folder / str(rows))]
            run(command)  # the page cache
            found[rows] = [run(command) for _ in range(rounds)]
    start = middle(found[1])
    cells = []
    for rows, some in found.items():
        one = middle(some)
        spent = one.wall - start.wall
        rate = f"{rows / spent:,.0f}" if spent > 0.05 else ""  # less is noise
        more = f"{(one.peak - start.peak) / MB:.0f} MB"
        cells.append([f"{rows:,} rows", spread(some), f"{spent:.2f} s", rate, f"{one.peak / MB:.0f} MB", more])
    table(HEADER, cells)


def make(folder: Path, count: int) -> None:
    """A store of random rows under the name of the carried model."""
    import base64

    import numpy as np

    from clipkit.features.store import describe_identity
    from clipkit.features.writer import Layout, StoreSink
    from clipkit.models.load import load
    from clipkit.stream.record import encode_json

    identity = load("lite", threads=1).identity
    sink = StoreSink(folder, lambda: Layout(describe_identity(identity), {"image": identity.dim}))
    draw = np.random.default_rng(0)
    for number in range(count):
        row = draw.standard_normal(identity.dim)
        packed = base64.b64encode((row / np.linalg.norm(row)).astype("<f2").tobytes()).decode()
        name = f"{number:09d}"
        record = {"id": name, "image": f"photos/{name}.jpg", "text": f"photo {name}", "emb": {"image": packed}}
        sink.write(encode_json(record), "")
    sink.commit()


if __name__ == "__main__":
    main()
