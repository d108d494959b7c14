"""What an adapter costs: how the model does on everything else, before and after, and how far to blend back."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from clipkit.methods.adapters import selection
from clipkit.methods.adapters.base import Adapter
from clipkit.methods.adapters.data import Features, Samples, among_others
from clipkit.methods.adapters.measure import Encode, along
from clipkit.methods.adapters.tuning import accuracy
from clipkit.stream.hashing import ticket

HALF: Final = "half of the classes, left out of a fit of its own"
OTHER: Final = "other images"
_FINE: Final = tuple(round(0.1 * step, 1) for step in range(11))
_COARSE: Final = (0.0, 0.25, 0.5, 0.75, 1.0)  # where each point encodes all images anew
_LEAST: Final = 4  # classes for a half to be left out


@dataclass(frozen=True)
class Beside:
    """Images of classes that an adapter doesn't know. on: where they come from. adapter: the one to measure on them."""

    on: str
    adapter: Adapter
    others: Samples


def beside(adapter: Adapter, support: Samples, validation: Samples | None, other: Samples | None) -> Beside | str:
    """What to measure forgetting on; or why there is nothing.

    Without other images, and where a fit needs only features: the task itself. Every other class, in an order by hash
    of its name and the seed, is learned by an adapter of its own, and the images of the rest are the others.
    """
    if other is not None and len(other):
        known = set(map(_key, support.task.classes))
        fresh = [number for number, name in enumerate(other.task.classes) if _key(name) not in known]
        others = only(other, fresh)
        return Beside(OTHER, adapter, others) if len(others) else "all the other images are of the adapter's classes"
    if adapter.needs == "model":
        return "it would take another training through the model: give images of other classes"
    if len(support.task.classes) < _LEAST:
        return f"fewer than {_LEAST} classes: give images of other classes"
    task = support.task
    order = sorted(range(len(task.classes)), key=lambda c: ticket(_key(task.classes[c]), task.seed, "forgetting"))
    learned, left = sorted(order[::2]), sorted(order[1::2])
    chosen_on = None if validation is None else only(validation, learned)
    fitted, _ = selection.fit(selection.fresh(adapter), only(support, learned), chosen_on)
    rest = [only(samples, left) for samples in (support, validation) if samples is not None]
    return Beside(HALF, fitted, _joined(rest)) if sum(map(len, rest)) else "no image of the classes left out"


def report(
    beside: Beside | str, trials: Sequence[tuple[Adapter, Samples]], trials_on: str | None, encode: Encode | None
) -> dict[str, Any]:
    """{"forgetting": ..., "blend": ...} for a report, as JSON.

    forgetting: accuracy on the others `alone` (among their own classes) and `together` (among the adapter's classes,
    by its logits, and theirs, by the model's: see `among_others`), before and after. blend: both sides over alpha
    (`Adapter.blend`): target is accuracy on what the trials didn't learn from, other is `together`; suggested is the
    alpha with the best harmonic mean of the two, of equals the smallest.
    """
    if isinstance(beside, Beside):
        some: Adapter | None = beside.adapter
    else:
        some = trials[0][0] if trials else None
    alphas = _COARSE if some is not None and some.changes_weights() else _FINE
    target = _on_trials(trials, alphas, encode) if trials else None
    alone, together = _on_others(beside, alphas, encode) if isinstance(beside, Beside) else (None, None)
    forgotten: dict[str, Any] = {"on": None, "reason": beside}
    if isinstance(beside, Beside):
        assert alone is not None and together is not None
        forgotten = {
            "on": beside.on,
            "classes": int(np.count_nonzero(beside.others.counts)),
            "images": len(beside.others),
            "alone": _change(alone[0], alone[-1]),
            "together": _change(together[0], together[-1]),
        }
    return {"forgetting": forgotten, "blend": _blend(alphas, target, trials_on, together, beside)}


def suggest(alphas: Sequence[float], target: Sequence[float], other: Sequence[float]) -> float:
    """The alpha with the best harmonic mean of two accuracies; of equals the smallest."""
    means = [2 * a * b / (a + b) if a + b else 0.0 for a, b in zip(target, other, strict=True)]
    best = max(means)
    return min(alpha for alpha, mean in zip(alphas, means, strict=True) if mean >= best - 1e-12)


def only(samples: Samples, numbers: Sequence[int]) -> Samples:
    """The samples of some classes, as a task of their own."""
    task = samples.task
    place = np.full(len(task.classes), -1)
    place[list(numbers)] = np.arange(len(numbers))
    smaller = replace(
        task,
        classes=tuple(task.classes[number] for number in numbers),
        text=task.text[list(numbers)],
        prompts=tuple(task.prompts[number] for number in numbers) if task.prompts else (),
    )
    kept = samples.take(np.flatnonzero(place[samples.labels] >= 0))
    return replace(kept, task=smaller, labels=place[kept.labels])


def _on_trials(
    trials: Sequence[tuple[Adapter, Samples]], alphas: Sequence[float], encode: Encode | None
) -> list[float]:
    """Accuracy at each alpha, over the samples of all trials."""
    correct = np.zeros(len(alphas))
    for adapter, samples in trials:
        for point, (logits, _) in enumerate(along(adapter, samples, alphas, encode)):
            correct[point] += accuracy(logits, samples.labels) * len(samples)
    found: list[float] = (correct / sum(len(samples) for _, samples in trials)).tolist()
    return found


def _on_others(beside: Beside, alphas: Sequence[float], encode: Encode | None) -> tuple[list[float], list[float]]:
    """Accuracy at each alpha, alone and together."""
    alone, together = [], []
    labels = beside.others.labels
    for own, seen in along(beside.adapter, beside.others, alphas, encode):
        theirs = seen.task.zero_shot(seen.plain)
        alone.append(accuracy(theirs, labels))
        if not beside.adapter.changes_weights():  # else its logits are zero-shot logits, of the model as it is now
            own = among_others(own, beside.adapter.task_.zero_shot(seen.plain))
        together.append(accuracy(np.hstack([own, theirs]), labels + own.shape[1]))
    return alone, together


def _blend(
    alphas: Sequence[float],
    target: list[float] | None,
    target_on: str | None,
    other: list[float] | None,
    beside: Beside | str,
) -> dict[str, Any]:
    missing = "no image of its classes was left to measure on: give validation images" if target is None else None
    if other is None:
        missing = str(beside)
    both = target is not None and other is not None
    return {
        "target_on": target_on,
        "other_on": beside.on if isinstance(beside, Beside) else None,
        "curve": [
            {
                "alpha": alpha,
                "target": None if target is None else round(target[point], 6),
                "other": None if other is None else round(other[point], 6),
            }
            for point, alpha in enumerate(alphas)
        ],
        "suggested": suggest(alphas, target, other) if both and target and other else None,
    } | ({"reason": missing} if missing else {})


def _change(before: float, after: float) -> dict[str, float]:
    return {"zero_shot": round(before, 6), "adapted": round(after, 6), "gain": round(after - before, 6)}


def _joined(parts: Sequence[Samples]) -> Samples:
    """Samples of one task as one, without their views."""
    plain = [part.plain for part in parts]
    backbones = [some.backbone for some in plain if some.backbone is not None]
    features = Features(
        np.concatenate([some.joint for some in plain]),
        np.concatenate(backbones) if len(backbones) == len(plain) else None,
    )
    labels = np.concatenate([part.labels for part in parts])
    return replace(parts[0], labels=labels, features=features, views=1, pictures=None, names=())


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name)
