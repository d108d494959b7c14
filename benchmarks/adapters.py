"""What few-shot adapters gain on real data with the carried model: the tables and the plot of docs/adapters.md.

    python benchmarks/adapters.py
    python benchmarks/adapters.py --plot docs/adapters.svg --json figures.json
    python benchmarks/adapters.py --methods gda,tip --shots 4,16 --views 10 --space joint

caltech101, clothing, eurosat and cifar10 of ../shared/data: K images of each class are drawn from those that are not of
the test split (20 a class, of cifar10 more), three times over; parameters are chosen on min(4, K / 2) of the K, held
out; accuracy is that of the test split, which nothing else looks at. Mean and standard deviation over the draws, in per
cent. Then the sets' own splits: all training images, parameters chosen on the val split where there is one, beside the
bare class means of the backbone's features. The last table says how long all fits of the draws took together from
cached features. Methods that train through an open_clip
model are left out: no weights of one are carried.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import DATA, facts, table

from clipkit.features.views import PLAIN, View, augmented
from clipkit.images.decode import decode
from clipkit.methods import ADAPTERS
from clipkit.methods.adapters import auto, selection
from clipkit.methods.adapters.base import Adapter
from clipkit.methods.adapters.data import Features, Samples, Space, Task, unit
from clipkit.methods.adapters.experiment import draw
from clipkit.methods.adapters.tuning import accuracy
from clipkit.models.lite import load
from clipkit.text.classifier import classifier
from clipkit.text.labels import Labels

SETS = ("caltech101", "clothing", "eurosat", "cifar10")
SHOTS = (1, 2, 4, 8, 16)
SEEDS = (0, 1, 2)
SPLITS = ("train", "val", "test")
ZERO, MEANS, AUTO = "zero-shot", "class means alone", "auto"


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy of few-shot adapters on real data.")
    parser.add_argument("--methods", default=",".join(methods()), help="by default all that need features alone")
    parser.add_argument("--shots", default=",".join(map(str, SHOTS)))
    parser.add_argument("--views", type=int, default=1, help="the picture, and so many less one crops of it")
    parser.add_argument("--space", choices=("joint", "backbone"), default="backbone")
    parser.add_argument("--plot", metavar="FILE.svg", help="accuracy over K; needs matplotlib")
    parser.add_argument("--json", metavar="FILE", help="all figures")
    asked = parser.parse_args()
    chosen, shots = asked.methods.split(","), [int(k) for k in asked.shots.split(",")]
    print(facts("numpy", "onnxruntime"), file=sys.stderr)
    figures: dict[str, dict[str, dict[int, list[float]]]] = {}
    spent: dict[str, dict[str, float]] = {}
    own: dict[str, dict[str, float]] = {}
    for name in SETS:
        train, validation, test = (samples(name, split, asked.views, asked.space) for split in SPLITS)
        figures[name], spent[name] = measure(chosen, joined(train, validation), test, shots)
        own[name] = own_split(chosen, train, validation, test)
        print(f"{name}: {sum(spent[name].values()):.1f} s", file=sys.stderr)
    for name in SETS:
        print(f"**{name}**, {asked.space} features, {asked.views} view{'s' * (asked.views > 1)}\n")
        table(("method", *(f"K = {k}" for k in shots)), rows(figures[name], shots))
    print("The sets' own splits\n")
    table(("method", *SETS), ([m, *(f"{100 * own[name][m]:.1f}" for name in SETS)] for m in own[SETS[0]]))
    print(f"Seconds for {len(shots)} values of K, {len(SEEDS)} draws\n")
    table(("method", *SETS), ([m, *(f"{spent[name][m]:.1f}" for name in SETS)] for m in chosen))
    if asked.json:
        Path(asked.json).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if asked.plot:
        plot(figures, shots, asked.plot)


def methods() -> list[str]:
    """Those that can be fitted from features, then the choice among them."""
    return [e.name for e in ADAPTERS if ADAPTERS.get(e.name).needs == "features"] + [AUTO]


def fit(method: str, support: Samples, validation: Samples | None = None) -> Adapter:
    """A method's own way to choose its parameters, then to learn from all of the support."""
    if method == AUTO:
        return auto.explore(auto.candidates(), support, validation)[0].adapter
    adapter: Adapter = ADAPTERS.get(method)()
    return selection.fit(adapter, support, validation)[0]


def own_split(chosen: Sequence[str], train: Samples, validation: Samples, test: Samples) -> dict[str, float]:
    """Test accuracy by method, learned from all training images, and that of bare class means."""
    rows = train.mean_view()
    means = unit(np.stack([rows[train.labels == label].mean(axis=0) for label in range(len(train.task.classes))]))
    found = {MEANS: accuracy(test.plain.of(test.task.space) @ means.T, test.labels)}
    given = validation if len(validation) else None
    return found | {m: accuracy(fit(m, train, given).logits(test.plain), test.labels) for m in chosen}


def joined(train: Samples, validation: Samples) -> Samples:
    """All that is not test."""
    assert train.features is not None and validation.features is not None
    features = Features(
        np.concatenate([train.features.joint, validation.features.joint]),
        np.concatenate([train.features.of("backbone"), validation.features.of("backbone")]),
    )
    labels = np.concatenate([train.labels, validation.labels])
    return replace(train, labels=labels, features=features, names=[*train.names, *validation.names])


def measure(
    chosen: Sequence[str], pool: Samples, test: Samples, shots: Sequence[int]
) -> tuple[dict[str, dict[int, list[float]]], dict[str, float]]:
    """Test accuracy by method, K and seed, and the seconds that each method took."""
    zero = accuracy(pool.task.zero_shot(test.plain), test.labels)
    found: dict[str, dict[int, list[float]]] = {ZERO: {k: [zero] for k in shots}}
    spent = {}
    for method in chosen:
        started = time.perf_counter()
        found[method] = {}
        for k in shots:
            found[method][k] = []
            for seed in SEEDS:
                seeded = replace(pool, task=replace(pool.task, seed=seed))
                adapter = fit(method, draw(seeded, k))
                found[method][k].append(accuracy(adapter.logits(test.plain), test.labels))
        spent[method] = time.perf_counter() - started
    return found, spent


def rows(figures: dict[str, dict[int, list[float]]], shots: Sequence[int]) -> Iterator[list[str]]:
    for method, by_k in figures.items():
        yield [f"`{method}`" if method != ZERO else method, *(shown(by_k[k]) for k in shots)]


def shown(values: Sequence[float]) -> str:
    mean = f"{100 * statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * statistics.stdev(values):.1f}"


def samples(name: str, split: str, views: int, space: Space) -> Samples:
    """One split as `lite` sees it."""
    folder = DATA / "classification" / name
    records = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    names = {record["label"]: record["text"] for record in records}
    classes = tuple(sorted(names))
    encoder = load()
    text = classifier(encoder, Labels(tuple(names[label] for label in classes)), encoder.default_templates)
    task = Task(classes, text, encoder.logit_scale, encoder.logit_bias, space)
    some = [record for record in records if record["split"] == split]
    views = 1 if split == "test" else views
    seen = [encode(encoder, folder, record, views) for record in some]
    joint = np.concatenate([joint for joint, _ in seen]) if seen else np.empty((0, encoder.identity.dim), np.float32)
    backbone = np.concatenate([b for _, b in seen]) if seen else np.empty((0, encoder.backbone_dim), np.float32)
    labels = np.array([classes.index(record["label"]) for record in some], np.int64)
    ids = [record["id"] for record in some]
    return Samples(task, labels, Features(joint, unit(backbone)), views, None, ids)


def encode(encoder: Any, folder: Path, record: dict[str, Any], views: int) -> tuple[np.ndarray, np.ndarray]:
    """Joint and backbone features of a picture and of crops of it."""
    picture = decode((folder / record["image"]).read_bytes())
    size = encoder.identity.preprocess.size
    shown: list[View] = [PLAIN, *(augmented(record["id"], view, 0, size) for view in range(1, views))]
    joint, backbone = encoder.encode_images([encoder.preprocess(view.make(picture)) for view in shown], backbone=True)
    return joint, backbone


def plot(figures: dict[str, dict[str, dict[int, list[float]]]], shots: Sequence[int], file: str) -> None:
    """Accuracy over K, a panel a data set."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "clipkit"  # the same figures give the same file
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(figures), figsize=(4.2 * len(figures), 4.2), sharex=True)
    for panel, (name, found) in zip(panels, figures.items(), strict=True):
        for number, (method, by_k) in enumerate(found.items()):
            means = [100 * statistics.mean(by_k[k]) for k in shots]
            if method == ZERO:
                panel.axhline(means[0], color="grey", linestyle=":", label=ZERO)
                continue
            style = {"color": "black", "linewidth": 2.5} if method == AUTO else {"color": f"C{number}"}
            panel.plot(shots, means, marker="o", markersize=3, label=method, zorder=3 if method == AUTO else 2, **style)
        panel.set(
            title=name, xlabel="images a class", xscale="log", ylabel="" if panel is not panels[0] else "top-1, %"
        )
        panel.set_xticks(shots, [str(k) for k in shots])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[-1].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    main()
