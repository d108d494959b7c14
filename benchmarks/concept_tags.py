"""Which rule says best what an image shows: precision and recall of concept tags against true labels, with `lite`.

    python benchmarks/concept_tags.py ../shared/data

Rules: the cosine; the cosine standardised for each concept over all images of DATA's sets; the softmax over the
concepts alone; and with nouns as background, as `clipkit concepts count` does it. Of each rule the best F1 that any
threshold gives, and of the last what its fixed thresholds give. Sets: the classes of Caltech-101; all classes of
Caltech-101, Clothing and CIFAR-10; these among the 290 names of Let It Wag!, which no image shows; COCO's objects
against those that its captions name. The last column: tags on a textbook figure, which mostly shows none of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from common import table

from clipkit.features.embedder import Embedder, open_embedder
from clipkit.methods.concepts.tags import Tagger
from clipkit.stream.record import Record
from clipkit.text.concepts import ConceptMatcher, read_concepts, spoken

SETS = ("caltech101", "clothing", "cifar10")
COCO = [
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra",
    "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "snowboard", "kite", "skateboard",
    "surfboard", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich",
    "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "bed", "dining table",
    "toilet", "tv", "laptop", "keyboard", "cell phone", "microwave", "oven", "sink", "refrigerator", "book",
    "clock", "vase", "scissors", "teddy bear", "toothbrush",
]  # fmt: skip
THRESHOLDS = (0.1, 0.15, 0.2, 0.3, 0.5)


def read(manifest: Path) -> tuple[list[Record], np.ndarray]:
    """The records of a manifest, and the unit features f32 [n, d] of their images."""
    records = [Record.parse(line) for line in manifest.read_bytes().splitlines()]
    embedder = open_embedder({"model": "lite"}, {"root": str(manifest.parent)})
    rows = [embedder.encode([embedder.prepare(record)]).joint for record in records]
    embedder.close()
    return records, np.concatenate(rows)


def best(scores: np.ndarray, true: np.ndarray) -> float:
    """The highest F1 of any threshold."""
    right = np.cumsum(true.ravel()[np.argsort(-scores, axis=None)])
    return float((2 * right / (np.arange(1, right.size + 1) + true.sum())).max())


def softmax(logits: np.ndarray) -> np.ndarray:
    likely = np.exp(logits - logits.max(1, keepdims=True))
    shares: np.ndarray = likely / likely.sum(1, keepdims=True)
    return shares


def named(records: list[Record], names: list[str]) -> np.ndarray:
    """Which names are the record's label, or are in its captions: bool [n, c]."""
    true = np.zeros((len(records), len(names)), bool)
    matcher = ConceptMatcher([[name] for name in names])
    for row, record in zip(true, records, strict=True):
        if "texts" in record:
            row[list(set().union(*(matcher.find(text) for text in record["texts"])))] = True
        else:
            row[names.index(record["text"])] = True
    return true


def main(data: Path) -> None:
    embedder: Embedder = open_embedder({"model": "lite"}, {})
    encoder = embedder.encoder
    sets = {name: read(data / f"classification/{name}/manifest.jsonl") for name in SETS}
    sets |= {name: read(data / f"captions/{name}/pairs.jsonl") for name in ("coco", "openstax")}
    everything = np.concatenate([rows for _, rows in sets.values()]).astype(np.float64)
    classes = {name: list(dict.fromkeys(r["text"] for r in sets[name][0])) for name in SETS}
    photos = [sets[name] for name in classes]
    joined = [record for records, _ in photos for record in records], np.concatenate([rows for _, rows in photos])
    all_classes = list(dict.fromkeys(name for names in classes.values() for name in names))
    rare = [spoken(name) for name in read_concepts(f"@{data / 'refs/let_it_wag_class_list.txt'}").names]
    tasks = {
        "caltech101": (sets["caltech101"], classes["caltech101"]),
        "clothing": (sets["clothing"], classes["clothing"]),
        "three sets": (joined, all_classes),
        "three sets + 290": (joined, [*all_classes, *rare]),
        "coco": (sets["coco"], COCO),
    }
    rules, fixed = [], []
    for title, ((records, rows), names) in tasks.items():
        true, features = named(records, names), rows.astype(np.float64)
        tagger = Tagger(embedder, [[name] for name in names], encoder.default_templates, encoder.logit_scale)
        texts = tagger.weights[: len(names)].T
        cosines, pool = features @ texts, everything @ texts
        shares = tagger.probabilities(rows)
        found = (cosines, (cosines - pool.mean(0)) / pool.std(0), softmax(encoder.logit_scale * cosines), shares)
        rules.append([title, str(len(names)), *(f"{best(scores, true):.2f}" for scores in found)])
        figures = tagger.probabilities(sets["openstax"][1])
        for threshold in THRESHOLDS:
            tags = shares >= threshold
            right = int((tags & true).sum())
            precision, recall = right / max(int(tags.sum()), 1), right / int(true.sum())
            empty = float((figures >= threshold).sum(1).mean())
            fixed.append([title, str(threshold), f"{precision:.2f}", f"{recall:.2f}", f"{empty:.3f}"])
    table(["set", "concepts", "cosine", "standardised", "softmax", "with background"], rules)
    table(["set", "threshold", "precision", "recall", "tags a figure"], fixed)
    embedder.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
