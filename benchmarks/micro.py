"""Does curation help? A DataComp of minutes: one small model, so many samples seen, and pools that differ.

    python benchmarks/micro.py --out DIR                         # the table of docs/training.md
    python benchmarks/micro.py --out DIR --only trusted,dfn,score,random-half --seeds 0
    python benchmarks/micro.py --out DIR --dev --lr 1e-3         # to choose a configuration

The pairs are ../shared/data/icons: emoji in two styles and game icons, with their names; emoji have tags besides. A
hash of the name holds out a fifth of all names, with all their pictures, for the test. A quarter of the other pairs is
the trusted part: their names are right. The rest becomes the pool, with three faults whose size is known: flags are in
it four times (one copy byte for byte, two as small JPEGs), so that it is out of balance, of the rest every tenth pair
is in it twice; then half of all captions are exchanged by `clipkit corrupt`.

Each condition makes a training set of the pool with clipkit's verbs, and each has a control: as many pairs drawn at
random (`clipkit sample`). All train the same model for the same number of steps, three seeds each, and are measured by
`clipkit eval retrieval` on the held-out names, emoji and game icons each as a gallery of their own. `dfn` scores the
pool with a model trained on the trusted part, the one of the same seed. `trusted` is that model itself, and `oracle`
keeps exactly what was not exchanged.

Nothing was chosen on the held-out names: --dev leaves them out and holds out a fifth of the others instead.
Every training run is a folder in DIR; what is there is not done again.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from common import DATA, cores, facts, table

from clipkit.stream.hashing import share

WRONG: Final = 0.5  # of the captions
TRUSTED: Final = 0.25  # of the pairs whose names are not held out
HELD_OUT: Final = 0.2  # of the names
SEEDS: Final = (0, 1, 2)
KINDS: Final = ("emoji", "game-icons")  # the first is what conditions are compared by: the other is barely learned
FIGURES: Final = ("image_to_text_r@1", "image_to_text_r@5", "text_to_image_r@1", "text_to_image_r@5")
RESAMPLES: Final = 2000

KEEP_HALF: Final = ["filter", "--top-fraction", "0.5", "--by", "scores.clip"]
BY_MODEL: Final = [["score", "--by", "clip", "--model", "TRUSTED"], KEEP_HALF]
DEDUP: Final = ["dedup", "--by", "phash"]


@dataclass(frozen=True)
class Condition:
    """steps: the arguments of each `clipkit` that the pool goes through; TRUSTED is the model of the trusted part.
    train: more arguments of `clipkit train`. control: the condition that it is held against, by name."""

    steps: Sequence[Sequence[str]] = ()
    train: Sequence[str] = ()
    control: str | None = None


CONDITIONS: Final = {
    "none": Condition(),
    "score": Condition([["score", "--by", "clip"], KEEP_HALF], control="random-half"),
    "dfn": Condition(BY_MODEL, control="random-half"),
    "dedup": Condition([DEDUP], control="random-dedup"),
    "balance": Condition([["balance", "--keep-fraction", "0.7"]], control="random-balance"),
    "dedup-dfn": Condition([DEDUP, *BY_MODEL], control="random-dedup-dfn"),
    "texts": Condition(train=["--texts", "original=1,tags=1"], control="none"),
    "oracle": Condition([["filter", "--where", "missing(corrupted)"]], control="random-half"),
    "trusted": Condition(control="none"),
}
# A control, and the condition whose size it has: of several the last, which differ by a pair at most.
CONTROLS: Final = {
    found.control: name for name, found in CONDITIONS.items() if found.control and found.control != "none"
}


@dataclass(frozen=True)
class Configuration:
    """How every model is trained."""

    model: str = "tiny-ViT-32"
    steps: int = 400
    batch_size: int = 128
    lr: float = 2e-3
    area: float = 0.7

    def arguments(self) -> list[str]:
        flags = (("--" + name.replace("_", "-"), str(value)) for name, value in asdict(self).items())
        return [word for flag in flags for word in flag]


# The pairs, and what becomes of them.


def icons(data: Path) -> Iterator[dict[str, Any]]:
    """All pairs; `name` is what decides where they go, `texts` has the tags as a second caption."""
    for kind in KINDS:
        folder = data / "icons" / kind
        for line in (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines():
            pair = json.loads(line)
            text = pair["text"].replace("-", " ")
            record = {
                "id": f"{kind}/{pair['id']}",
                "image": str((folder / pair["image"]).resolve()),
                "text": text,
                "name": text.casefold(),
                "kind": kind,
                "flag": pair.get("label") == "Flags",
            }
            if tags := ", ".join(pair.get("tags", [])):
                record["texts"] = [{"text": text, "source": "original"}, {"text": tags, "source": "tags"}]
            yield record


def prepare(data: Path, out: Path, dev: bool) -> None:
    """Write trusted.jsonl, clean.jsonl (the pool before captions are exchanged) and KIND.jsonl, the tests."""
    parts: dict[str, list[dict[str, Any]]] = {name: [] for name in ("trusted", "clean", *KINDS)}
    copies = out / "copies"
    copies.mkdir(parents=True, exist_ok=True)
    for pair in icons(data):
        held = share(pair["name"], 0, "held-out") < HELD_OUT
        if dev:
            if held:
                continue
            held = share(pair["name"], 0, "development") < HELD_OUT
        if held:
            parts[pair["kind"]].append({key: value for key, value in pair.items() if key != "texts"})
        elif share(pair["id"], 0, "trusted") < TRUSTED:
            parts["trusted"].append(pair)
        else:
            parts["clean"] += [pair, *copied(pair, copies)]
    for name, some in parts.items():
        (out / f"{name}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in some), encoding="utf-8")


def copied(pair: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """The further copies of a pair in the pool: files of their own."""
    often = 3 if pair["flag"] else int(share(pair["id"], 0, "copy") < 0.1)
    stem = pair["id"].replace("/", "-")
    for number in range(often):
        path = folder / f"{stem}-{number}.{'jpg' if number else 'png'}"
        if number:
            path.write_bytes(small_jpeg(Path(pair["image"]), 56 - 8 * number))
        else:
            shutil.copyfile(pair["image"], path)
        yield {**pair, "id": f"{pair['id']}-copy-{number}", "image": str(path)}


def small_jpeg(path: Path, side: int) -> bytes:
    from PIL import Image

    with Image.open(path) as picture:
        flat = Image.new("RGBA", picture.size, "white")
        flat.alpha_composite(picture.convert("RGBA"))
    buffer = io.BytesIO()
    flat.convert("RGB").resize((side, side)).save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


def clipkit(*words: str | Path) -> None:
    """A command line of clipkit, in this process: importing torch takes longer than most of these."""
    from clipkit import cli

    with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
        code = cli.run([*map(str, words), "-q"])
    if code:
        raise RuntimeError(f"exit code {code} from clipkit {' '.join(map(str, words))}")


# A run: a training set, a model, its figures.


@dataclass(frozen=True)
class Job:
    out: Path
    name: str
    seed: int
    configuration: Configuration

    @property
    def folder(self) -> Path:
        return self.out / "runs" / f"{self.name}-{self.seed}"

    @property
    def subset(self) -> Path:
        return subset(self.out, self.name, self.seed)


def subset(out: Path, name: str, seed: int) -> Path:
    return out / f"{name}.jsonl" if name in ("trusted", "pool") else out / "subsets" / f"{name}-{seed}.jsonl"


def chosen(job: Job) -> None:
    """Write the training set of a condition, or of a control."""
    if job.subset.exists():
        return
    job.subset.parent.mkdir(exist_ok=True)
    pool, path = job.out / "pool.jsonl", job.subset
    if job.name in CONTROLS:
        size = len(lines(subset(job.out, CONTROLS[job.name], job.seed)))
        clipkit("sample", pool, "-n", str(size), "--seed", str(job.seed), "-o", path)
        return
    trusted = f"{job.out / 'runs' / f'trusted-{job.seed}' / 'model'}/"
    before, made = pool, []
    for number, step in enumerate(CONDITIONS[job.name].steps):
        made.append(path.with_suffix(f".step{number}.jsonl"))
        clipkit(*(trusted if word == "TRUSTED" else word for word in step), before, "-o", made[-1])
        before = made[-1]
    whole = path.with_suffix(".whole")
    shutil.copyfile(before, whole)
    whole.rename(path)
    for step_file in made:
        step_file.unlink()


def work(job: Job) -> None:
    """Train and measure, unless that was done."""
    runs = [job.folder / f"{kind}.json" for kind in KINDS]
    if all(run.exists() for run in runs):
        return
    chosen(job)
    more = CONDITIONS[job.name].train if job.name in CONDITIONS else ()
    seed = ["--seed", str(job.seed), "--checkpoint-every", str(job.configuration.steps)]
    job.folder.parent.mkdir(exist_ok=True)
    clipkit("train", job.subset, *job.configuration.arguments(), *more, *seed, "--restart", "-o", job.folder)
    shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)
    for kind, run in zip(KINDS, runs, strict=True):
        clipkit("eval", "retrieval", job.out / f"{kind}.jsonl", "--model", f"{job.folder / 'model'}/", "-o", run)
    print(f"{job.name}, seed {job.seed}: done", file=sys.stderr, flush=True)


def settle(places: multiprocessing.Queue[set[int]]) -> None:
    """Keep a process to its own cores: clipkit takes as many threads as there are cores for it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, places.get())


# What came of it.


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()


@dataclass
class Measured:
    """A condition. pairs: of its training set, the mean over seeds. keys: u64 [images], of the test. outcomes: of each
    figure, [seeds, images]."""

    pairs: float
    keys: np.ndarray
    outcomes: dict[str, np.ndarray]

    @property
    def recall(self) -> np.ndarray:
        """R@5, the mean of both ways: [seeds, images]."""
        both: np.ndarray = (self.outcomes[FIGURES[1]] + self.outcomes[FIGURES[3]]) / 2
        return both


def measured(out: Path, name: str, seeds: Sequence[int], kind: str) -> Measured | None:
    from clipkit.evaluation import runs

    files = [out / "runs" / f"{name}-{seed}" / f"{kind}.json" for seed in seeds]
    if not all(file.exists() for file in files):
        return None
    loaded = [runs.load(str(file))[0] for file in files]
    outcomes = {figure: np.stack([run.outcomes[figure].astype(float) for run in loaded]) for figure in FIGURES}
    pairs = float(np.mean([len(lines(subset(out, name, seed))) for seed in seeds]))
    return Measured(pairs, loaded[0].keys, outcomes)


def names_of(out: Path, kind: str, keys: np.ndarray) -> np.ndarray:
    """int [images]: equal numbers for pictures of one name, in the order of a run's `keys`. (Records that show one
    picture are one image of a run, by the id of the first.)"""
    from clipkit.evaluation import runs

    records = [json.loads(line) for line in lines(out / f"{kind}.jsonl")]
    named = dict(zip(runs.keys([r["id"] for r in records]).tolist(), (r["name"] for r in records), strict=True))
    return np.unique([named[key] for key in keys.tolist()], return_inverse=True)[1]


class Doubt:
    """95 % intervals of a mean over seeds and images, and of the difference of two.

    Two things are drawn at random: names (both styles of an emoji together; bootstrap), and the seed of a training.
    The variance over seeds is pooled over all conditions, since three seeds say little about it. Some of it is in the
    first part as well, so that the intervals are rather too wide than too narrow.
    """

    def __init__(self, names: np.ndarray, all_of_them: Sequence[np.ndarray]) -> None:
        """all_of_them: [seeds, images] of each condition."""
        count = names.max() + 1
        drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
        self._weights = drawn[:, names].astype(float)
        several = [values.mean(axis=1) for values in all_of_them if len(values) > 1]
        self.seed_variance = float(np.mean([np.var(means, ddof=1) for means in several])) if several else 0.0

    def half_width(self, values: np.ndarray, trainings: int = 1) -> float:
        """values: [seeds, images], a condition or the difference of `trainings` conditions."""
        resampled = self._weights @ values.mean(axis=0) / self._weights.sum(axis=1)
        return 1.96 * math.sqrt(float(resampled.var()) + trainings * self.seed_variance / len(values))


def report(out: Path, seeds: Sequence[int], configuration: Configuration) -> None:
    """Print the tables, and write everything to micro.json."""
    everything: dict[str, Any] = {"configuration": asdict(configuration), "seeds": list(seeds), "retrieval": {}}
    for kind in KINDS:
        found = {name: m for name in (*CONDITIONS, *CONTROLS) if (m := measured(out, name, seeds, kind))}
        if found:
            everything["retrieval"][kind] = retrieval(found, names_of(out, kind, next(iter(found.values())).keys), kind)
    everything["filters"] = filters(out, seeds)
    (out / "micro.json").write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")


def retrieval(found: dict[str, Measured], names: np.ndarray, kind: str) -> dict[str, Any]:
    """Print and return what each condition came to, and what it is over its control."""
    doubt = Doubt(names, [m.recall for m in found.values()])
    conditions: dict[str, Any] = {}
    rows = []
    for name, m in found.items():
        means = {figure: float(m.outcomes[figure].mean()) for figure in FIGURES}
        said: dict[str, Any] = {"pairs": m.pairs, "figures": means, "seeds": m.recall.mean(axis=1).tolist()}
        said["r@5"], said["half_width"] = float(m.recall.mean()), doubt.half_width(m.recall)
        row = [name, f"{m.pairs:,.0f}", *(f"{100 * means[figure]:.1f}" for figure in FIGURES)]
        row.append(f"{100 * said['r@5']:.1f} ± {100 * said['half_width']:.1f}")
        control = CONDITIONS[name].control if name in CONDITIONS else None
        if control in found:
            gain = m.recall - found[control].recall
            said |= {"control": control, "gain": float(gain.mean()), "gain_half_width": doubt.half_width(gain, 2)}
            row.append(f"{100 * said['gain']:+.1f} ± {100 * said['gain_half_width']:.1f} ({control})")
        conditions[name] = said
        rows.append([*row, ""][:8])
    test = {"images": len(names), "names": int(names.max()) + 1, "seed_deviation": math.sqrt(doubt.seed_variance)}
    print(f"{kind}: {test['images']:,} pictures of {test['names']:,} names that no training set has\n")
    ways = ["R@1 i→t", "R@5 i→t", "R@1 t→i", "R@5 t→i"]
    table(["training set", "pairs", *ways, "R@5, both ways", "over its control"], rows)
    return {"test": test, "conditions": conditions}


def filters(out: Path, seeds: Sequence[int]) -> dict[str, Any]:
    """Print and return what each training set has, and lacks, of the pool's faults: means over seeds."""
    pool = {record["id"]: record for record in map(json.loads, lines(out / "pool.jsonl"))}
    wrong = {name for name, record in pool.items() if record.get("corrupted")}
    figures = {}
    for name in ("none", *(name for name, c in CONDITIONS.items() if c.steps), *CONTROLS):
        files = [subset(out, name, seed) for seed in seeds]
        if not all(file.exists() for file in files):
            continue
        faults = []
        for file in files:
            kept = {json.loads(line)["id"] for line in lines(file)}
            gone = len(pool) - len(kept)
            found = len(wrong - kept)
            flags = sum(pool[one]["flag"] for one in kept) / len(kept)
            faults.append([found / len(wrong), found / gone if gone else 0, len(wrong & kept) / len(kept), flags])
        means = np.mean(faults, axis=0).tolist()
        figures[name] = dict(zip(("recall", "precision", "left_wrong", "flags"), means, strict=True))
    print(f"the pool: {len(pool):,} pairs, {len(wrong):,} of them with a wrong caption\n")
    head = ["training set", "wrong captions: recall", "precision", "wrong among what stays", "flags among what stays"]
    table(head, ([name, *(f"{100 * value:.1f} %" for value in said.values())] for name, said in figures.items()))
    return figures


def main() -> None:
    asked = arguments()
    out = (asked.out / ("dev" if asked.dev else "test")).resolve()
    configuration = Configuration(
        **{name: value for name in asdict(Configuration()) if (value := getattr(asked, name)) is not None}
    )
    out.mkdir(parents=True, exist_ok=True)
    os.environ["CLIPKIT_CACHE"] = str(out / "cache")
    if not (out / "pool.jsonl").exists():
        prepare(asked.data, out, asked.dev)
        clipkit("corrupt", out / "clean.jsonl", "--shuffle", str(WRONG), "-o", out / "pool.jsonl")
    names = [name for name in (*CONDITIONS, *CONTROLS) if not asked.only or name in asked.only]
    jobs = [Job(out, name, seed, configuration) for seed in asked.seeds for name in names]
    context = multiprocessing.get_context("spawn")
    places, there = context.Queue(), sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    for number in range(asked.jobs):
        places.put(set(there[number :: asked.jobs] or there))
    with context.Pool(asked.jobs, settle, [places]) as pool:
        for some in phases(names):
            pool.map(work, [job for name in some for job in jobs if job.name == name], chunksize=1)
    print(facts("torch", "open_clip_torch"), file=sys.stderr)
    report(out, asked.seeds, configuration)


def phases(names: Sequence[str]) -> Iterator[list[str]]:
    """What can be done at once: first what needs only the pool, `trusted` at its head."""
    scored = [name for name in names if name in CONDITIONS and BY_MODEL[0] in CONDITIONS[name].steps]
    plain = [name for name in names if name in CONDITIONS and name not in scored]
    yield sorted(plain, key=lambda name: name != "trusted")
    yield scored
    yield [name for name in names if name in CONTROLS]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a folder; what is in it is not done again")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", type=lambda text: text.split(","), help="these conditions: " + ", ".join(CONDITIONS))
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=list(SEEDS))
    parser.add_argument("--jobs", type=int, default=cores(), help="runs at once")
    parser.add_argument("--dev", action="store_true", help="hold out training names, and leave the test names alone")
    for name, value in asdict(Configuration()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), help=f"with --dev; it is {value}")
    asked = parser.parse_args()
    if not asked.dev and any(getattr(asked, name) is not None for name in asdict(Configuration())):
        parser.error("the configuration was fixed before the test names were looked at: change it with --dev")
    return asked


if __name__ == "__main__":
    main()
