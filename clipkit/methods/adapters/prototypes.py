"""Class means as a classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from clipkit.methods.adapters.base import Adapter, Head, param
from clipkit.methods.adapters.data import Samples, product
from clipkit.methods.adapters.tuning import Axis, tune


@dataclass(kw_only=True)
class Prototypes(Adapter):
    """Cosine to the mean of each class's features, beside the zero-shot logits (nearest class mean: Mensink et al.,
    "Distance-based image classification", 2013; prototypes: Snell et al., 2017)."""

    name: ClassVar[str] = "prototypes"
    cost: ClassVar[str] = "one pass over the features"
    citation: ClassVar[str] = "Mensink et al., Distance-Based Image Classification, 2013"
    closed_form: ClassVar[bool] = True
    tries_many: ClassVar[bool] = True

    alpha: float | None = param(None, "weight on the cosines, as a multiple of the model's scale", untuned=3.0, low=0)

    def _fit(self, support: Samples, validation: Samples | None) -> None:
        rows = support.mean_view().astype(np.float64)
        sums = np.zeros((len(support.task.classes), rows.shape[1]))
        np.add.at(sums, support.labels, rows)
        self.state_ = {"sums": sums, "counts": support.counts}
        if self.alpha is None and validation is not None:
            plain = validation.plain
            head = support.task.scale * product(plain.of(support.task.space), self._means())
            chosen = tune(support.task.zero_shot(plain), lambda _: head, validation.labels, Axis(0.1, 100, zero=True))
            self.chosen_ = {"alpha": chosen.alpha}

    def _means(self) -> np.ndarray:
        """Unit means f64 [C, d]."""
        means = self.state_["sums"] / self.state_["counts"][:, None]
        unit: np.ndarray = means / np.linalg.norm(means, axis=1, keepdims=True)
        return unit

    def _head(self) -> Head:
        return self.over_zero_shot(self.at("alpha") * self.task_.scale, self._means())
