"""The losses once more, from their papers: numpy, f64, a sum for a sum; and how to ask clipkit's for the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Alone:
    rank: int = 0
    world: int = 1

    def gather(self, rows: Any) -> Any:
        return rows


def arrays(
    seed: int = 0, *, pairs: int = 4, captions: int = 3, negatives: int = 2, width: int = 3
) -> dict[str, np.ndarray]:
    """Whatever a loss may look at. Rows are not unit ones: formulas don't ask it, and finite differences leave them."""
    draw = np.random.default_rng(seed)
    present = np.arange(captions) < draw.integers(1, captions + 1, pairs)[:, None]
    return {
        "image": draw.normal(0, 0.5, (pairs, width)),
        "text": draw.normal(0, 0.5, (pairs, captions, width)) * present[:, :, None],
        "present": present,
        "scale": np.array(draw.uniform(2, 6)),
        "bias": np.array(draw.uniform(-3, 0)),
        "negatives": draw.normal(0, 0.5, (pairs, negatives, width)),
        "negatives_present": draw.random((pairs, negatives)) < 0.6,
        "logits": draw.normal(0, 1, (pairs, 5, 7)),
        "tokens": draw.integers(0, 7, (pairs, 5)),
        "teacher_image": draw.normal(0, 0.5, (pairs, width + 2)),
        "teacher_text": draw.normal(0, 0.5, (pairs, width + 2)),
        "teacher_scale": np.array(draw.uniform(2, 6)),
    }


def cross_entropy(logits: list[float], truth: list[float]) -> float:
    total = sum(np.exp(logits))
    return -sum(share * np.log(np.exp(logit) / total) for logit, share in zip(logits, truth, strict=True))


def one_hot(length: int, at: int) -> list[float]:
    return [float(place == at) for place in range(length)]


def contrast(
    image: np.ndarray, text: np.ndarray, scale: np.ndarray, truth: Callable[[int, int], list[float]] = one_hot
) -> float:
    count = len(image)
    total = 0.0
    for i in range(count):
        total += cross_entropy([scale * image[i] @ text[j] for j in range(count)], truth(count, i))
        total += cross_entropy([scale * text[i] @ image[j] for j in range(count)], truth(count, i))
    return total / (2 * count)


def clip(a: Arrays) -> float:
    return contrast(a["image"], a["text"][:, 0], a["scale"])


def siglip(a: Arrays) -> float:
    image, text = a["image"], a["text"][:, 0]
    total = 0.0
    for i in range(len(image)):
        for j in range(len(image)):
            sign = 1 if i == j else -1
            total += np.log(1 + np.exp(-sign * (a["scale"] * image[i] @ text[j] + a["bias"])))
    return total / len(image)


def coca(a: Arrays) -> float:
    said = [
        cross_entropy(list(logits), one_hot(len(logits), token))
        for row, tokens in zip(a["logits"], a["tokens"], strict=True)
        for logits, token in zip(row, tokens, strict=True)
        if token != 0
    ]
    return clip(a) + 2 * sum(said) / len(said)


def turns(a: Arrays) -> list[np.ndarray]:
    """The captions of each turn: an image's own again where it has fewer."""
    text, counts = a["text"], a["present"].sum(1)
    return [np.stack([text[i, turn % counts[i]] for i in range(len(text))]) for turn in range(text.shape[1])]


def multi_positive(a: Arrays) -> float:
    return float(np.mean([contrast(a["image"], text, a["scale"]) for text in turns(a)]))


def hq_clip(a: Arrays) -> float:
    image, scale = a["image"], a["scale"]
    count, total = len(image), 0.0
    for text in turns(a):
        for i in range(count):
            wrong = a["negatives"][i][a["negatives_present"][i]]
            answers = [*text, *wrong]
            total += cross_entropy([scale * image[i] @ answer for answer in answers], one_hot(len(answers), i))
            total += cross_entropy([scale * text[i] @ image[j] for j in range(count)], one_hot(count, i))
    return total / (2 * count * a["text"].shape[1])


def loob(x: np.ndarray, y: np.ndarray, tau: float) -> float:
    total = 0.0
    for i in range(len(x)):
        others = sum(np.exp(x[i] @ y[j] / tau) for j in range(len(x)) if j != i)
        total += -x[i] @ y[i] / tau + np.log(others)
    return tau * total / len(x)


def retrieved(state: np.ndarray, stored: np.ndarray, beta: float) -> np.ndarray:
    rows = []
    for query in state:
        weights = np.exp([beta * query @ pattern for pattern in stored])
        row = sum(weight * pattern for weight, pattern in zip(weights / weights.sum(), stored, strict=True))
        rows.append(row / np.sqrt(row @ row))
    return np.stack(rows)


def infoloob(a: Arrays, *, hopfield: bool = True, beta: float = 8.0) -> float:
    x, y, tau = a["image"], a["text"][:, 0], 1 / a["scale"]
    if not hopfield:
        return loob(x, y, tau) + loob(y, x, tau)
    from_images = loob(retrieved(x, x, beta), retrieved(y, x, beta), tau)
    return from_images + loob(retrieved(y, y, beta), retrieved(x, y, beta), tau)


def softened(a: Arrays, alpha: float = 0.2) -> float:
    def truth(count: int, own: int) -> list[float]:
        return [1 - alpha if place == own else alpha / (count - 1) for place in range(count)]

    return contrast(a["image"], a["text"][:, 0], a["scale"], truth if len(a["image"]) > 1 else one_hot)


def distill(a: Arrays) -> float:
    image, text, scale = a["image"], a["text"][:, 0], a["scale"]
    their_image, their_text, their_scale = a["teacher_image"], a["teacher_text"], a["teacher_scale"]
    count, total = len(image), 0.0
    for i in range(count):
        for mine, other, theirs, others in (
            (image, text, their_image, their_text),
            (text, image, their_text, their_image),
        ):
            weights = np.exp([their_scale * theirs[i] @ others[j] for j in range(count)])
            total += cross_entropy([scale * mine[i] @ other[j] for j in range(count)], list(weights / weights.sum()))
    return clip(a) + total / (2 * count)


LOSSES: dict[str, Callable[[Arrays], float]] = {
    "clip": clip,
    "siglip": siglip,
    "coca": coca,
    "multi-positive": multi_positive,
    "hq-clip": hq_clip,
    "infoloob": infoloob,
    "softened": softened,
    "distill": distill,
}


def outputs(a: Arrays, *, dtype: Any = None) -> Any:
    """Arrays as `Outputs`, leaves that have gradients."""
    import torch

    from clipkit.methods.losses.base import Outputs

    def tensor(name: str) -> Any:
        held = torch.from_numpy(np.array(a[name]))
        held = held.to(dtype or torch.float64) if held.is_floating_point() else held
        return held.requires_grad_(held.is_floating_point() and not name.startswith("teacher"))

    names = ("image", "text", "present", "scale", "bias", "negatives", "negatives_present", "logits", "tokens")
    teacher = Outputs(
        image=tensor("teacher_image"),
        text=tensor("teacher_text")[:, None],
        present=torch.ones(len(a["image"]), 1, dtype=torch.bool),
        scale=tensor("teacher_scale"),
    )
    return Outputs(**{name: tensor(name) for name in names}, teacher=teacher)
