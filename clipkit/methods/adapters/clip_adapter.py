"""A bottleneck on the features: CLIP-Adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np

from clipkit.errors import UsageError
from clipkit.methods.adapters.base import Adapter
from clipkit.methods.adapters.data import Features, Samples, product
from clipkit.methods.adapters.descent import cross_entropy_slope, descend, drawn_views, in_order, keep_best
from clipkit.methods.adapters.tuning import Axis, score, tune
from clipkit.methods.parameters import param
from clipkit.stream.hashing import ticket

if TYPE_CHECKING:
    from clipkit.methods.adapters.network import Network

EPOCHS: Final = 100
RATIO: Final = 0.2
_REDUCTION = 4
_RATE = 1e-3


@dataclass(kw_only=True)
class ClipAdapter(Adapter):
    """Zero-shot classification of f' = ratio * A(x) + (1 - ratio) * f, made unit again, where f is the joint feature
    and A(x) = ReLU(up ReLU(down x)) a bottleneck of a quarter of x's width, without biases (Gao et al.,
    "CLIP-Adapter", 2021).

    In the paper x is f. Where the task's space is the backbone's, x is the backbone feature and A maps it into the
    joint space, where the texts are: the same form, from features that hold more. It doesn't fold into a linear head,
    for the ReLUs and the norm.

    Where ours differs: the paper trains at a rate of 1e-5 on batches of 32; here it is AdamW at 1e-3 (decay 0.01)
    along a cosine on batches of 256, as in Tip-Adapter-F, 100 epochs. The epoch and then the ratio are chosen on
    validation data; it trains at the paper's 0.2 unless a ratio is given. A begins near 0, so an untrained one is
    nearly zero-shot.
    """

    name: ClassVar[str] = "clip-adapter"
    cost: ClassVar[str] = "seconds for thousands of samples, in proportion to their number"
    citation: ClassVar[str] = "Gao et al., CLIP-Adapter: Better Vision-Language Models with Feature Adapters, 2021"
    views: ClassVar[bool] = True

    ratio: float | None = param(None, "weight of the bottleneck's features, 0 to 1", untuned=RATIO, low=0)
    epochs: int | None = param(None, "passes over the samples, while the rate falls to 0", untuned=EPOCHS, low=0)

    def _fit(self, support: Samples, validation: Samples | None) -> None:
        if self.ratio is not None and self.ratio > 1:
            raise UsageError(f"ratio of {self.name} is at most 1, not {self.ratio:g}")
        support = in_order(support)
        features, task = support.plain, support.task
        down, up = first_weights(features.of(task.space).shape[1], features.joint.shape[1], task.seed)
        self.state_ = {"down": down, "up": up}
        choose = self.epochs is None and validation is not None
        ratio = RATIO if self.ratio is None else self.ratio
        epochs = descend(
            [down, up],
            self._slope(support, down, up, ratio),
            support.names,
            seed=task.seed,
            horizon=EPOCHS if self.epochs is None else self.epochs,
            epochs=EPOCHS if choose else self.at("epochs"),
            rate=_RATE,
        )
        if validation is None or not choose:
            for _ in epochs:
                pass
        else:
            plain, labels = validation.plain, validation.labels
            best = keep_best([down, up], epochs, lambda: score(self._answers(plain)(ratio), labels))
            self.chosen_["epochs"] = best
        if validation is not None and self.ratio is None:
            self._choose_ratio(validation)

    def _slope(
        self, support: Samples, down: np.ndarray, up: np.ndarray, ratio: float
    ) -> Callable[[np.ndarray, int], list[np.ndarray]]:
        """The gradients of some samples' mean loss, as `descend` asks for them."""
        task = support.task

        def slope(rows: np.ndarray, epoch: int) -> list[np.ndarray]:
            some = drawn_views(support, rows, epoch)
            labels = support.labels[rows]
            return bottleneck_slope(down, up, some.of(task.space), some.joint, labels, task.text, task.scale, ratio)

        return slope

    def _choose_ratio(self, validation: Samples) -> None:
        answers = self._answers(validation.plain)
        nothing = np.zeros((len(validation), len(self.task_.classes)))
        found = tune(nothing, answers, validation.labels, Axis(1, 1), Axis(0, 1, points=11, log=False))
        self.chosen_["ratio"] = found.outer

    def _answers(self, features: Features) -> Callable[[float], np.ndarray]:
        """The logits of the same features for one ratio after another: f64 [n, C]."""
        task = self.task_
        narrow = np.maximum(product(features.of(task.space), self.state_["down"]), 0)
        made = np.maximum(product(narrow, self.state_["up"]), 0)

        def logits(ratio: float) -> np.ndarray:
            if ratio == 0:
                return task.zero_shot(features)
            mixed = ratio * made + (1 - ratio) * features.joint.astype(np.float64)
            return task.scale * product(mixed / _lengths(mixed), task.text) + (task.bias or 0.0)

        return logits

    def _logits(self, features: Features) -> np.ndarray:
        return self._answers(features)(self.at("ratio"))

    def network(self, made: Network) -> str:
        task, ratio = self.task_, self.at("ratio")
        if ratio == 0:
            return made.zero_shot()
        narrow = made.above_zero(made.product(made.features(task.space), self.state_["down"]))
        wide = made.above_zero(made.product(narrow, self.state_["up"]))
        mixed = made.add(made.times(wide, ratio), made.times(made.features("joint"), 1 - ratio))
        logits = made.times(made.product(made.unit(mixed), task.text), task.scale)
        return made.add(logits, task.bias or 0.0)


def first_weights(width: int, out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """down [width // 4, width] and up [out, width // 4], f32: uniform within 1 / sqrt(inputs), as linear layers begin,
    from a generator that the seed's hash starts."""
    draw = np.random.default_rng(int.from_bytes(ticket("weights", seed, "clip-adapter"), "big"))
    hidden = max(1, width // _REDUCTION)
    down, up = (
        draw.uniform(-(inputs**-0.5), inputs**-0.5, (outputs, inputs)).astype(np.float32)
        for outputs, inputs in ((hidden, width), (out, hidden))
    )
    return down, up


def bottleneck_slope(
    down: np.ndarray,
    up: np.ndarray,
    rows: np.ndarray,
    joint: np.ndarray,
    targets: np.ndarray,
    text: np.ndarray,
    scale: float,
    ratio: float,
) -> list[np.ndarray]:
    """The gradients of the mean cross-entropy with respect to down [h, d] and up [D, h], of their shapes and type.

    rows: [b, d], what the bottleneck reads. joint: [b, D]. targets: int64 [b]. text: [C, D].
    """
    narrow = np.maximum(rows @ down.T, 0)
    made = np.maximum(narrow @ up.T, 0)
    mixed = ratio * made + (1 - ratio) * joint
    length = _lengths(mixed)
    turned = mixed / length
    slope = scale * cross_entropy_slope(scale * (turned @ text.T), targets) @ text
    slope -= turned * (slope * turned).sum(axis=1, keepdims=True)  # the norm takes out what lies along the feature
    slope *= ratio / length
    slope *= made > 0
    through = (slope @ up) * (narrow > 0)
    return [through.T @ rows, slope.T @ narrow]


def _lengths(rows: np.ndarray) -> np.ndarray:
    """[n, 1]; 1 for a row of zeros."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    made: np.ndarray = np.where(length > 0, length, length.dtype.type(1))
    return made
