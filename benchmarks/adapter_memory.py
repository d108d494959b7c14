"""Time and peak memory of fitting an adapter on 100,000 features of 1,000 classes; nothing may take more than 8 GB.

    python benchmarks/adapter_memory.py [--scale 1] [--space joint] [--methods gda,tip]

Every method that needs features alone, each in a process of its own; features are random around random class means, 512
wide in the joint space and 1,280 in the backbone's. Nothing is held out: parameters are the untuned ones. Time and the
peak include making the features (0.2 GB, with the backbone's 0.7), which the row `none` does alone.
"""

from __future__ import annotations

import argparse
import sys

from common import MB, facts, run, table

SAMPLES, CLASSES = 100_000, 1_000
JOINT, BACKBONE = 512, 1_280
LIMIT = 8e9
NONE = "none"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and peak memory of fitting adapters.")
    parser.add_argument("--scale", type=float, default=1.0, help="of both samples and classes")
    parser.add_argument("--space", choices=("joint", "backbone"), default="joint")
    parser.add_argument("--methods", help="by default all that need features alone")
    parser.add_argument("--fit", help=argparse.SUPPRESS)  # what a process of its own does
    asked = parser.parse_args()
    if asked.fit:
        fit(asked.fit, asked.scale, asked.space)
        return
    print(facts("numpy", "scipy"), end="\n\n")
    samples, classes = size(asked.scale)
    print(f"{samples:,} samples, {classes:,} classes, {asked.space} features\n")
    again = ["--scale", str(asked.scale), "--space", asked.space]
    found = asked.methods.split(",") if asked.methods else run_list()
    rows, over = [], []
    for name in (NONE, *found):
        taken = run([sys.executable, __file__, *again, "--fit", name])
        rows.append([name, f"{taken.wall:.1f} s", f"{taken.cpu:.1f} s", f"{taken.peak / MB:,.0f} MB"])
        over += [name] * (taken.peak > LIMIT)
        print(*rows[-1], file=sys.stderr, flush=True)
    table(["method", "time", "CPU time", "peak memory"], rows)
    print(f"Limit: {LIMIT / MB:,.0f} MB. " + (f"Over it: {', '.join(over)}." if over else "All are under it."))


def size(scale: float) -> tuple[int, int]:
    """Samples and classes."""
    return round(SAMPLES * scale), max(2, round(CLASSES * scale))


def run_list() -> list[str]:
    """The methods that are fitted from features."""
    from clipkit.methods import ADAPTERS

    return [entry.name for entry in ADAPTERS if ADAPTERS.get(entry.name).needs == "features"]


def fit(method: str, scale: float, space: str) -> None:
    """Make features and fit one method on them."""
    import numpy as np

    from clipkit.methods import ADAPTERS
    from clipkit.methods.adapters.data import Features, Samples, Task

    samples, classes = size(scale)
    draw = np.random.default_rng(0)
    labels = np.arange(samples) % classes

    def features(width: int) -> tuple[np.ndarray, np.ndarray]:
        """Unit rows f32 and the means that they lie around."""
        means = draw.standard_normal((classes, width), np.float32)
        rows = draw.standard_normal((samples, width), np.float32)
        for start in range(0, samples, 4096):
            rows[start : start + 4096] += means[labels[start : start + 4096]]
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows, means / np.linalg.norm(means, axis=1, keepdims=True)

    joint, text = features(JOINT)
    backbone = features(BACKBONE)[0] if space == "backbone" else None
    task = Task(tuple(f"class {number}" for number in range(classes)), text, 22.36, space=space)  # type: ignore[arg-type]
    support = Samples(task, labels, Features(joint, backbone), names=[f"n{row}" for row in range(samples)])
    if method != NONE:
        ADAPTERS.get(method)().fit(support)


if __name__ == "__main__":
    main()
