"""Tip-Adapter's alpha and beta on validation data: clipkit's search against walking the original's grid of 200 x 20.

    python benchmarks/tip_search.py [CLASSES] [SHOTS] [VALIDATION] [WIDTH]

1,000 classes x 16 shots, 4,000 validation images and 512 wide by default, random features around a mean for each class
with texts that are noisy means. The grid is walked with beta outside and alpha inside, both to 13 (the widest of the
original's): products with the keys made once and, for each beta, one exp and one product with the
one-hot values. The original makes all of these anew for each of the 4,000 pairs; that is timed on a few pairs and
multiplied. Each way uses f32 where it can; the grid counts right answers, and clipkit's search cross-entropy, too.
"""

from __future__ import annotations

import sys
from time import perf_counter
from typing import TYPE_CHECKING

from common import child, facts, table

if TYPE_CHECKING:
    from clipkit.methods.adapters.data import Samples

HEADER = ("way", "pairs", "time", "ratio", "alpha", "beta", "validation accuracy")
BETAS, ALPHAS, TOP_BETA, TOP_ALPHA = 200, 20, 13.0, 13.0
SAMPLED = 3  # pairs of the original that are timed


def main() -> None:
    if sys.argv[1:2] == ["measure"]:
        measure(*map(int, sys.argv[2:]))
        return
    sizes = [int(word) for word in [*sys.argv[1:5], *["1000", "16", "4000", "512"][len(sys.argv[1:5]) :]]]
    print(facts("numpy"), end="\n\n")
    print("{:,} classes x {} shots, {:,} validation images, width {}".format(*sizes), end="\n\n")
    found = child("benchmarks/tip_search.py", "measure", *sizes)
    ours = found["clipkit"]["seconds"]
    table(
        HEADER,
        (
            [
                way,
                f"{one['pairs']:,}",
                f"{one['seconds']:.2f} s",
                f"{one['seconds'] / ours:.1f}",
                *(
                    [f"{one['alpha']:.3g}", f"{one['beta']:.3g}", f"{one['accuracy']:.4%}"]
                    if "alpha" in one
                    else ["", "", ""]
                ),
            ]
            for way, one in found.items()
        ),
    )


def measure(classes: int, shots: int, validation: int, width: int) -> None:
    """Prints what each way took and found, as JSON."""
    import json

    from clipkit.methods.adapters.tip import Tip
    from clipkit.methods.adapters.tuning import accuracy

    support, held = made(classes, shots, validation, width)
    started = perf_counter()
    fitted = Tip().fit(support, held)
    spent = perf_counter() - started
    right = accuracy(fitted.logits(held.plain), held.labels)
    ours = {"pairs": 0, "seconds": spent, "accuracy": right, **fitted.chosen_}
    ours["pairs"] = pairs_tried(support, held)
    print(json.dumps({"clipkit": ours, **grid(support, held)}))


def made(classes: int, shots: int, validation: int, width: int) -> tuple[Samples, Samples]:
    import numpy as np

    from clipkit.methods.adapters.data import Features, Samples, Task, unit

    draw = np.random.default_rng(0)
    means = draw.standard_normal((classes, width), np.float32)
    text = unit(means + 1.0 * draw.standard_normal(means.shape, np.float32))
    task = Task(tuple(map(str, range(classes))), text, 22.36)

    def samples(labels: np.ndarray) -> Samples:
        noise = draw.standard_normal((len(labels), width), np.float32)
        return Samples(task, labels, Features(unit(means[labels] + 3.5 * noise)))

    return samples(np.repeat(np.arange(classes), shots)), samples(draw.integers(0, classes, validation))


def pairs_tried(support: Samples, held: Samples) -> int:
    """How many pairs the search looks at; asked apart, so that it isn't timed."""
    from clipkit.methods.adapters.tip import ALPHA, BETA, Cache
    from clipkit.methods.adapters.tuning import tune

    cache = Cache(support.plain.joint, support.labels, len(support.task.classes))
    base = support.task.zero_shot(held.plain)
    return tune(base, cache.searcher(held.plain.joint), held.labels, ALPHA, BETA).tried


def grid(support: Samples, held: Samples) -> dict[str, dict[str, float]]:
    """The grid with what doesn't change taken out of its loops, and the original's loops, by a few pairs."""
    import numpy as np

    keys, rows, labels = support.plain.joint, held.plain.joint, held.labels
    values = np.eye(len(support.task.classes), dtype=np.float32)[support.labels]
    text = support.task.text * np.float32(support.task.scale)
    betas = 0.1 + np.arange(BETAS) * (TOP_BETA - 0.1) / BETAS
    alphas = 0.1 + np.arange(ALPHAS) * (TOP_ALPHA - 0.1) / ALPHAS

    def right(logits: np.ndarray) -> float:
        return float((logits.argmax(axis=1) == labels).mean())

    started = perf_counter()
    near, base = rows @ keys.T, rows @ text.T
    best = (-1.0, 0.0, 0.0)
    for beta in betas.tolist():
        votes = np.exp(-(beta - beta * near)) @ values
        for alpha in alphas.tolist():
            now = right(base + alpha * votes)
            if now > best[0]:
                best = (now, alpha, beta)
    walked = perf_counter() - started
    started = perf_counter()
    for beta in betas[:SAMPLED].tolist():
        right(rows @ text.T + TOP_ALPHA * (np.exp(-(beta - beta * (rows @ keys.T))) @ values))
    each = (perf_counter() - started) / SAMPLED
    pairs = BETAS * ALPHAS
    return {
        "grid": {"pairs": pairs, "seconds": walked, "accuracy": best[0], "alpha": best[1], "beta": best[2]},
        "grid as published, from a few pairs": {"pairs": pairs, "seconds": each * pairs},
    }


if __name__ == "__main__":
    main()
