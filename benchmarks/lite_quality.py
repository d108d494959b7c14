"""What the carried model is worth: the table of clipkit/models/lite/MODEL_CARD.md.

Example:

    python benchmarks/lite_quality.py

Test splits of ../shared/data, default prompts, exact decoding. Zero-shot and class means: top-1 accuracy. Retrieval:
the share of captions whose own image is among the first 1, 5 or 10. "Class means": images of the test split go to the
nearest mean of the 16 training images of each class. SugarCrepe: how often the true caption beats its altered twin.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from clipkit.images.decode import decode
from clipkit.models.base import Encoder
from clipkit.models.lite import load
from clipkit.text.classifier import classifier
from clipkit.text.labels import Labels

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
CLASSIFICATION = ("caltech101", "clothing", "cifar10", "eurosat")


def main() -> None:
    encoder = load()
    print("| test | figure |\n|---|---|")
    for name in CLASSIFICATION:
        for what, value in classification(encoder, DATA / "classification" / name / "manifest.jsonl").items():
            print(f"| {name}: {what} | {value:.3f} |", flush=True)
    for name in ("coco", "openstax"):
        records = read(DATA / "captions" / name / "pairs.jsonl")
        recalls = " / ".join(f"{value:.3f}" for value in retrieval(encoder, DATA / "captions" / name, records))
        print(f"| {name}: {len(records)} images, caption to image R@1 / 5 / 10 | {recalls} |", flush=True)
    print(f"| coco: captions of this and of another image told apart (AUC) | {matching(encoder):.3f} |")
    for kind, value in sugarcrepe(encoder).items():
        print(f"| sugarcrepe: {kind} | {value:.2f} |")


def classification(encoder: Encoder, manifest: Path) -> dict[str, float]:
    """Zero-shot with the default templates, then nearest class means in three spaces."""
    records = [record for record in read(manifest) if record["split"] in ("train", "test")]
    names = {record["label"]: record["text"] for record in records}
    labels = sorted(names)
    truth = np.array([labels.index(record["label"]) for record in records])
    test = np.array([record["split"] == "test" for record in records])
    joint, backbone = encode(encoder, manifest.parent, records)
    weights = classifier(encoder, Labels(tuple(names[label] for label in labels)), encoder.default_templates)
    semantic = np.abs(weights).sum(0) > 0  # texts are zero elsewhere
    found = {"zero-shot": float((np.argmax(joint[test] @ weights.T, 1) == truth[test]).mean())}
    spaces = {"joint space": joint, "its semantic part": unit(joint[:, semantic]), "backbone": unit(backbone)}
    for space, rows in spaces.items():
        means = unit(np.stack([rows[~test & (truth == label)].mean(0) for label in range(len(labels))]))
        found[f"class means, {space}"] = float((np.argmax(rows[test] @ means.T, 1) == truth[test]).mean())
    return found


def retrieval(encoder: Encoder, root: Path, records: list[dict[str, Any]]) -> tuple[float, ...]:
    """Recall at 1, 5 and 10 of each image among all, by each of its captions."""
    texts = [(text, row) for row, record in enumerate(records) for text in record.get("texts", [record["text"]])]
    own = np.array([row for _, row in texts])
    scores = encoder.encode_texts([text for text, _ in texts]) @ encode(encoder, root, records)[0].T
    better = (scores > scores[np.arange(len(own)), own][:, None]).sum(1)
    return tuple(float((better < k).mean()) for k in (1, 5, 10))


def matching(encoder: Encoder) -> float:
    """How often a first caption is nearer to its own image than to another one."""
    records = read(DATA / "captions" / "coco" / "pairs.jsonl")
    images = encode(encoder, DATA / "captions" / "coco", records)[0]
    scores = encoder.encode_texts([record["text"] for record in records]) @ images.T
    matched = np.diag(scores)
    other = scores[~np.eye(len(scores), dtype=bool)]
    return float((matched[:, None] > other[None]).mean())


def sugarcrepe(encoder: Encoder) -> dict[str, float]:
    """Accuracy by kind of change (Hsieh et al., 2023)."""
    root = DATA / "captions" / "coco"
    records = read(root / "sugarcrepe.jsonl")
    images = encode(encoder, root, records)[0]
    true, altered = (encoder.encode_texts([record[side] for record in records]) for side in ("text", "negative"))
    kinds = defaultdict(list)
    for record, won in zip(records, (images * true).sum(1) > (images * altered).sum(1), strict=True):
        kinds[record["kind"]].append(bool(won))
    return {f"{kind} ({len(won)})": float(np.mean(won)) for kind, won in sorted(kinds.items())}


def encode(encoder: Encoder, root: Path, records: list[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Joint [n, 512] and backbone [n, 1280] features of the records' images."""
    rows = []
    for record in records:
        pixels = encoder.preprocess(decode((root / record["image"]).read_bytes()))
        rows.append(encoder.encode_images(pixels[None], backbone=True))
    return np.concatenate([joint for joint, _ in rows]), np.concatenate([backbone for _, backbone in rows])


def read(manifest: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]


def unit(rows: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


if __name__ == "__main__":
    main()
