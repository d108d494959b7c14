"""Zero-shot classification of images against labels (Radford et al., 2021)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from clipkit.errors import UsageError
from clipkit.features.embedder import ImageFeatures
from clipkit.stages.encoding import EncodingStage
from clipkit.stream.record import Record
from clipkit.stream.stage import Outcome
from clipkit.stream.table import Column
from clipkit.text.classifier import classifier
from clipkit.text.labels import Labels

COLUMNS = (
    Column("image", 44, lambda r: r.id or ""),
    Column("label", 24, lambda r: r["pred"]["label"]),
    Column("prob", 6, lambda r: f"{r['pred']['prob']:.3f}", right=True),
    Column("margin", 6, lambda r: f"{r['pred']['margin']:.3f}", right=True),
)


def predict(features: np.ndarray, weights: np.ndarray, scale: float, bias: float | None) -> np.ndarray:
    """Class probabilities f64 [n, c] of unit image features [n, d] against unit class features [c, d].

    softmax(scale * features @ weights.T + bias), each row on its own in float64, so that no row depends on the batch.
    The softmax is over the labels given, for SigLIP models too (its bias cancels): the labels are read as exclusive.
    """
    out = np.empty((len(features), len(weights)))
    for row, feature in zip(out, features, strict=True):
        # einsum without BLAS: its sum doesn't depend on the number of threads
        row[:] = softmax(scale * np.einsum("cd,d->c", weights, feature.astype(np.float64)) + (bias or 0.0))
    return out


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities f64 [c] of one row of logits f64 [c]."""
    row: np.ndarray = np.exp(logits - logits.max())
    row /= row.sum()
    return row


def describe(probabilities: np.ndarray, names: tuple[str, ...], top_k: int) -> dict[str, Any]:
    """One row of probabilities [c] as `pred`; ties go to the label named first."""
    order = np.argsort(-probabilities, kind="stable")[: max(top_k, 2)]
    top = [[names[i], round(float(probabilities[i]), 6)] for i in order]
    margin = top[0][1] - top[1][1] if len(top) > 1 else top[0][1]
    return {"label": top[0][0], "prob": top[0][1], "margin": round(margin, 6), "topk": top[:top_k]}


class Predicting(EncodingStage):
    """A stage that adds `pred`, of probabilities that a subclass gives. With `features` it reads no images, only ids.

    config: as `open_embedder` takes it, and top_k. A subclass sets `names` in `setup`, and `backbone` where it needs
    those features too.
    """

    reads: tuple[str, ...] = ("image",)
    adds: ClassVar[tuple[str, ...]] = ("pred",)
    defaults: ClassVar[dict[str, Any]] = {**EncodingStage.defaults, "top_k": 5, "features": None}

    names: tuple[str, ...]
    backbone: bool = False

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        super().__init__(config, runtime)
        if self.config["features"]:
            self.reads = ()

    def probabilities(self, features: ImageFeatures) -> np.ndarray:
        """f64 [n, c] over `names`; no row depends on the others."""
        raise NotImplementedError

    def prepare(self, record: Record) -> Any:
        return record, self.embedder.prepare(record, backbone=self.backbone)

    def process(self, items: list[Any]) -> list[Outcome]:
        features = self.embedder.encode([image for _, image in items], backbone=self.backbone)
        kept: list[Outcome] = []
        for (record, _), row in zip(items, self.probabilities(features), strict=True):
            record.add("pred", describe(row, self.names, self.config["top_k"]), self.via)
            kept.append(record)
        return kept


def check_several(names: tuple[str, ...]) -> None:
    """Raise UsageError for a single label."""
    if len(names) < 2:
        hint = "name what else it may be: --labels cats,dogs"
        raise UsageError(f"one label, {names[0]!r}, would win every image", hint)


class Zeroshot(Predicting):
    """Adds `pred`.

    config: as `Predicting` takes it, and labels (`Labels.to_json`), templates ([] = the model's own).
    """

    verb: ClassVar[str] = "zeroshot"
    defaults: ClassVar[dict[str, Any]] = {**Predicting.defaults, "templates": []}

    def setup(self) -> None:
        super().setup()
        labels = Labels.from_json(self.config["labels"])
        check_several(labels.names)
        templates = tuple(self.config["templates"] or self.encoder.default_templates)
        weights = classifier(self.embedder, labels, templates)
        self.names, self.weights = labels.names, weights.astype(np.float64)

    def probabilities(self, features: ImageFeatures) -> np.ndarray:
        return predict(features.joint, self.weights, self.encoder.logit_scale, self.encoder.logit_bias)
