"""Memory and time of a step on a large batch: at once, and in chunks (gradient caching).

    python benchmarks/gradcache.py [--model tiny-ViT-64] [--batch 1024] [--chunks 256,64] [--steps 3] [--loss clip]

Each in a process of its own; pixels are random, captions are seven words or so. `model alone` is the same without a
step. Time is the median of the steps; the peak is of the whole process. The largest difference is that of any gradient
from the same one at once, over the largest of that weight.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from common import MB, facts, run, table

WORDS = ("a", "red", "blue", "small", "old", "dog", "cat", "tree", "house", "road", "with", "under", "by", "the", "sea")
NOTHING = 0


def main() -> None:
    parser = argparse.ArgumentParser(description="A step at once and in chunks.")
    parser.add_argument("--model", default="tiny-ViT-64", help="an architecture")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--chunks", default="256,64")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--loss", default="clip")
    parser.add_argument("--step", type=int, help=argparse.SUPPRESS)  # what a process of its own does
    parser.add_argument("--found", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.step is not None:
        steps(asked)
        return
    print(facts("torch", "open_clip_torch"), end="\n\n")
    print(f"{asked.model}, {asked.loss}, a batch of {asked.batch:,}\n")
    again = [f"--{name}={getattr(asked, name)}" for name in ("model", "batch", "steps", "loss")]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for chunk in (NOTHING, asked.batch, *map(int, asked.chunks.split(","))):
            found = Path(folder, str(chunk))
            taken = run([sys.executable, __file__, *again, f"--step={chunk}", f"--found={found}"])
            named = "model alone" if chunk == NOTHING else "at once" if chunk == asked.batch else f"chunks of {chunk}"
            same = difference(Path(folder, str(asked.batch)), found) if 0 < chunk < asked.batch else ""
            rows.append([named, seconds(found), f"{taken.peak / MB:,.0f} MB", same])
            print(*rows[-1], file=sys.stderr, flush=True)
    table(["", "a step", "peak memory", "largest difference"], rows)


def steps(asked: argparse.Namespace) -> None:
    """Do them, and write gradients and time."""
    from statistics import median
    from time import perf_counter

    import numpy as np
    import torch

    from clipkit.methods import LOSSES
    from clipkit.models.open_clip import untrained
    from clipkit.training.distributed import Alone
    from clipkit.training.gradcache import backward
    from clipkit.training.loader import Batch
    from clipkit.training.settings import Settings
    from clipkit.training.student import Student

    loss = LOSSES.get(asked.loss).from_settings({})
    encoder = untrained(asked.model, seed=0, bias=loss.bias)
    student = Student(encoder, Settings(loss=asked.loss), loss)
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(WORDS, draw.integers(4, 11))) for _ in range(asked.batch)]
    pixels = draw.standard_normal((asked.batch, 3, *encoder.identity.preprocess.size), dtype=np.float32)
    tokens = encoder.tokenize(texts)[:, None]
    present = torch.ones(asked.batch, 1, dtype=torch.bool)
    batch = Batch(texts, texts, torch.from_numpy(pixels), tokens, present, after=asked.batch)
    taken = []
    for _ in range(asked.steps if asked.step != NOTHING else 0):
        student.model.zero_grad()
        started = perf_counter()
        backward(student, batch, loss, Alone(), asked.step)
        if encoder.device.startswith("cuda"):
            torch.cuda.synchronize()
        taken.append(perf_counter() - started)
    gradients = {
        name: value.grad.cpu().numpy() for name, value in student.parameters().items() if value.grad is not None
    }
    with open(asked.found, "wb") as file:
        np.savez(file, seconds=np.array(median(taken) if taken else np.nan), **gradients)


def seconds(found: Path) -> str:
    import numpy as np

    with np.load(found) as arrays:
        taken = float(arrays["seconds"])
    return "" if np.isnan(taken) else f"{taken:.2f} s"


def difference(expected: Path, found: Path) -> str:
    import numpy as np

    with np.load(expected) as whole, np.load(found) as parts:
        names = [name for name in whole.files if name != "seconds"]
        return f"{max(np.abs(whole[name] - parts[name]).max() / np.abs(whole[name]).max() for name in names):.1e}"


if __name__ == "__main__":
    main()
