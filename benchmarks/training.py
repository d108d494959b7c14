"""How many pairs a second training goes through, beside open_clip's own loop (open_clip_train).

    python benchmarks/training.py
    python benchmarks/training.py --models tiny-ViT-64 --rounds 5

The same model, pictures (icons of ../shared/data, from their files), batch, precision (f32), optimizer and crops; both
take all cores of the machine. Each run is a process of its own, of one epoch, in which no pair comes twice, so that
nothing that was decoded is used again. What counts is the time of a step in the middle of a run: the first ones, and
what is saved in between, are left out. The two take turns, and the order changes from round to round. open_clip_train
reads with processes of its own (`--workers`): each number of them is tried, and the best of them counts.

A row: pairs a second, the median over all steps (least and most of the runs' medians), and how many times clipkit's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median

from common import CLIPKIT, DATA, child, facts, run, scratch, table

SKIPPED = 5  # steps in which threads and processes start
BATCHES = {"tiny-ViT-64": 64, "ViT-B-32": 16}
WORKERS = (1, 2)


def pairs(data: Path, count: int) -> list[tuple[str, str, str]]:
    """(id, path, text) of `count` icons; from the first one again where there are fewer."""
    found = []
    for kind in ("emoji", "game-icons"):
        folder = (data / "icons" / kind).resolve()
        records = map(json.loads, (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines())
        found += [(str(folder / record["image"]), record["text"]) for record in records]
    return [(str(number), *found[number % len(found)]) for number in range(count)]


def write(some: Sequence[tuple[str, str, str]], folder: Path) -> tuple[Path, Path]:
    """The pairs as records, and as the table that open_clip_train reads."""
    records, columns = folder / "pairs.jsonl", folder / "pairs.tsv"
    lines = (json.dumps({"id": name, "image": image, "text": text}) + "\n" for name, image, text in some)
    records.write_text("".join(lines), encoding="utf-8")
    rows = (f"{image}\t{text}\n" for _, image, text in some)
    columns.write_text("filepath\ttitle\n" + "".join(rows), encoding="utf-8")
    return records, columns


def clipkit(records: Path, model: str, steps: int, batch: int, folder: Path) -> list[float]:
    """Seconds of each step."""
    asked = ["--model", model, "--steps", str(steps), "--batch-size", str(batch), "--warmup", "1"]
    run([*CLIPKIT, "train", str(records), *asked, "--precision", "f32", "--restart", "-o", str(folder), "-q"])
    said = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [batch / step["samples_per_s"] for step in said]


def open_clip(columns: Path, model: str, batch: int, workers: int, folder: Path) -> list[float]:
    """Seconds of each step; a child's work."""
    import logging
    import time

    import open_clip
    from open_clip_train.main import main as train

    from clipkit.models.listing import TINY

    times: list[float] = []

    class Clock(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("Train Epoch:"):
                times.append(time.perf_counter())

    open_clip.add_model_config(TINY)
    logging.getLogger().addHandler(Clock())
    asked = f"--model {model} --batch-size {batch} --epochs 1 --warmup 1 --lr 5e-4 --wd 0.2 --precision fp32"
    where = ["--train-data", str(columns), "--dataset-type", "csv", "--logs", str(folder), "--name", "run"]
    train([*asked.split(), *where, "--workers", str(workers), "--log-every-n-steps", "1", "--device", "cpu"])
    return [later - before for before, later in pairwise(times)]


def measure(model: str, data: Path, steps: int, rounds: int) -> list[list[str]]:
    """The rows of a model."""
    batch = BATCHES[model]
    found: dict[str, list[list[float]]] = {}
    with scratch() as folder:
        records, columns = write(pairs(data, steps * batch), folder)
        for number in range(rounds):
            names = ["clipkit", *(f"open_clip_train, {workers} workers" for workers in WORKERS)]
            for name in names if number % 2 == 0 else reversed(names):
                there = folder / f"{name}-{number}"
                if name == "clipkit":
                    seconds = clipkit(records, model, steps, batch, there)
                else:
                    workers = name.split()[1]
                    seconds = child(__file__, "open_clip", columns, model, batch, workers, there)
                found.setdefault(name, []).append([batch / one for one in seconds[SKIPPED:]])
    rates = {name: median(rate for run in runs for rate in run) for name, runs in found.items()}
    rows = []
    for name, runs in found.items():
        middles = [median(run) for run in runs]
        spread = f"{rates[name]:.1f} ({min(middles):.1f}-{max(middles):.1f})"
        rows.append([f"{model}, batch {batch}: {name}", spread, f"{rates['clipkit'] / rates[name]:.2f}x"])
    best = max(rate for name, rate in rates.items() if name != "clipkit")
    print(f"{model}: {rates['clipkit'] / best:.2f} times open_clip_train at its best", file=sys.stderr)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--models", type=lambda text: text.split(","), default=list(BATCHES), help=", ".join(BATCHES))
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=4)
    asked = parser.parse_args()
    print(facts("torch", "open_clip_torch"), file=sys.stderr)
    rows = [row for model in asked.models for row in measure(model, asked.data, asked.steps, asked.rounds)]
    table(["", "pairs a second", "clipkit is faster by"], rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["open_clip"]:
        _, _, columns, model, batch, workers, folder = sys.argv
        from contextlib import redirect_stdout

        with redirect_stdout(sys.stderr):
            seconds = open_clip(Path(columns), model, int(batch), int(workers), Path(folder))
        print(json.dumps(seconds))
    else:
        main()
