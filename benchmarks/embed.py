"""`clipkit embed FOLDER -o DIR` against what decoding and the model cost alone.

    python benchmarks/embed.py [PHOTOS] [ROUNDS] [MODEL ...]

PHOTOS (2000) photos of 1024 x 768, made by photos.py; MODEL is `lite` and `random` (open_clip's ViT-B-32 of random
weights) or any name that clipkit takes. In each of ROUNDS (3) rounds the verb runs between two measurements of the cost
alone (encoding_cost.py): one process with one thread, and as many such processes at once as there are cores. The
possible rate is cores / (decoding + model), in core seconds an image. Medians over the rounds:

- of the possible: images a second of the verb, from its start to its end, over the possible rate;
- without start: the same, without the time that the verb takes for one photo (imports, loading the model);
- cores share a memory: the same, the cost being that of a process where every core has one;
- CPU to the point: that cost, over all the CPU time that the verb takes an image, its start left out;
- cores busy: CPU time over wall time and cores. It is below 1 where threads wait for each other or for other programs.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from common import CLIPKIT, MB, Run, child, cores, facts, run, scratch, table

SIZE = (1024, 768)
HEADER = (
    *("model", "decoding", "model", "possible", "`clipkit embed`", "of the possible (least-most)", "without start"),
    *("cores share a memory", "CPU to the point", "cores busy", "peak memory"),
)
SAMPLE = 96  # photos that the cost is measured on, each time


@dataclass(frozen=True)
class Round:
    """The verb on all photos and on one; core seconds an image, of one process alone and where every core has one."""

    whole: Run
    start: Run
    decoding: float
    model: float
    together: float
    photos: int

    @property
    def alone(self) -> float:
        return self.decoding + self.model

    @property
    def rate(self) -> float:
        return self.photos / self.whole.wall

    @property
    def running_rate(self) -> float:
        return (self.photos - 1) / (self.whole.wall - self.start.wall)

    @property
    def to_the_point(self) -> float:
        return (self.photos - 1) * self.together / (self.whole.cpu - self.start.cpu)

    @property
    def busy(self) -> float:
        return (self.whole.cpu - self.start.cpu) / (self.whole.wall - self.start.wall) / cores()


def main() -> None:
    words = sys.argv[1:]
    count, rounds = (int(word) for word in (words[:2] + ["2000", "3"][len(words[:2]) :]))
    print(facts("onnxruntime", "torch", "open_clip_torch", "pillow"), end="\n\n")
    with scratch() as folder:
        photos, single = folder / "photos", folder / "single"
        child("benchmarks/photos.py", photos, count, *SIZE)
        child("benchmarks/photos.py", single, 1, *SIZE)
        size = sum(path.stat().st_size for path in photos.iterdir()) / count
        print(f"{count:,} photos of {SIZE[0]} x {SIZE[1]}, {size / 1e3:.0f} kB each, {rounds} rounds", end="\n\n")
        rows = [measured(model, photos, single, count, rounds, folder) for model in words[2:] or ["lite", "random"]]
    table(HEADER, rows)


def measured(model: str, photos: Path, single: Path, count: int, rounds: int, folder: Path) -> list[str]:
    """A row of the table."""
    name = model
    if model == "random":
        child("benchmarks/random_clip.py", folder / "random.pt")
        name, model = f"ViT-B-32:{folder}/random.pt", "ViT-B-32 (random)"
    embed(single, folder, name)  # bytecode and the page cache
    found = []
    before = cost(name, photos)
    for _ in range(rounds):
        start, whole = embed(single, folder, name), embed(photos, folder, name)
        after = cost(name, photos)
        decoding, encoding, together = map(mean, zip(before, after, strict=True))
        found.append(Round(whole, start, decoding, encoding, together, count))
        before = after
    share = [one.rate * one.alone / cores() for one in found]
    return [
        model,
        f"{1e3 * median(one.decoding for one in found):.2f} ms",
        f"{1e3 * median(one.model for one in found):.2f} ms",
        f"{cores() / median(one.alone for one in found):.1f}/s",
        f"{median(one.rate for one in found):.1f}/s",
        f"{median(share):.1%} ({min(share):.1%}-{max(share):.1%})",
        f"{median(one.running_rate * one.alone for one in found) / cores():.1%}",
        f"{median(one.running_rate * one.together for one in found) / cores():.1%}",
        f"{median(one.to_the_point for one in found):.1%}",
        f"{median(one.busy for one in found):.1%}",
        f"{median(one.whole.peak for one in found) / MB:.0f} MB",
    ]


def embed(photos: Path, folder: Path, model: str) -> Run:
    return run([*CLIPKIT, "embed", str(photos), "-o", str(folder / "store"), "--no-cache", "--model", model])


def cost(model: str, photos: Path) -> tuple[float, float, float]:
    """Core seconds an image: decoding and model of one process alone; both, where every core has such a process."""
    alone = child("benchmarks/encoding_cost.py", model, photos, SAMPLE)
    with ThreadPoolExecutor(cores()) as pool:
        every = list(pool.map(lambda _: child("benchmarks/encoding_cost.py", model, photos, SAMPLE), range(cores())))
    return alone[0], alone[1], mean(sum(one) for one in every)


if __name__ == "__main__":
    main()
