"""Classifiers as encoders whose image features are probabilities: a head that was exported, and what it is held to."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clipkit.errors import ClipkitError, UsageError
from clipkit.methods.adapters.base import Adapter
from clipkit.methods.adapters.data import BACKBONE, Features, Task, unit
from clipkit.methods.adapters.folding import trusted
from clipkit.models.base import Encoder
from clipkit.models.exported import identity_of
from clipkit.models.names import MANIFEST
from clipkit.models.sessions import open_session
from clipkit.text.classifier import classifier
from clipkit.text.labels import Labels, parse_labels

if TYPE_CHECKING:
    from PIL import Image

    from clipkit.exporting.base import Wish
    from clipkit.methods.adapters.files import Saved


def asked(encoder: Encoder, saved: Saved | None, wish: Wish) -> Adapter | Task:
    """What a head answers: an adapter, as `apply` asks it, or labels, as `zeroshot` does.

    encoder: with the adapter's weights in it. Raises UsageError for labels that cannot be told apart, ClipkitError for
    an adapter that is damaged.
    """
    if saved is None:
        assert wish.labels is not None
        labels = parse_labels(wish.labels)
        if len(labels.names) < 2:
            raise UsageError(f"one label, {labels.names[0]!r}, would win every picture", "name what else it may be")
        if wish.templates and not labels.undescribed():
            raise UsageError("--template decides nothing here: every label has descriptions", "leave it out")
        text = classifier(encoder, labels, wish.templates or encoder.default_templates)
        return Task(labels.names, text, encoder.logit_scale, encoder.logit_bias)
    adapter, task = saved.adapter, saved.adapter.task_
    if adapter.changes_weights():
        described = Labels(task.classes, dict(zip(task.classes, task.prompts, strict=True)))
        adapter.task_ = replace(task, text=classifier(encoder, described, ()))
    assert wish.adapter is not None
    with trusted(wish.adapter):
        one, behind = np.ones((1, encoder.identity.dim)), np.ones((1, encoder.backbone_dim or 1))
        if not np.isfinite(adapter.logits(Features(unit(one), unit(behind)))).all():
            raise ValueError("its logits are not finite")
    return adapter


class SourceAnswers(Encoder):
    """Probabilities of a model and an adapter or labels, f32 [n, C], computed as `apply` and `zeroshot` do."""

    def __init__(self, encoder: Encoder, question: Adapter | Task) -> None:
        task = question if isinstance(question, Task) else question.task_
        self._logits: Callable[[Features], np.ndarray] = (
            question.zero_shot if isinstance(question, Task) else question.logits
        )
        self._behind = task.space == BACKBONE
        self._encoder = encoder
        self.identity = encoder.identity
        self.logit_scale, self.logit_bias = encoder.logit_scale, encoder.logit_bias
        self.preprocess = encoder.preprocess  # type: ignore[method-assign]

    @property
    def batch_size(self) -> int:
        """The model's own: torch pads to it, so that who times a picture alone sets it to 1."""
        return self._encoder.batch_size

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        self._encoder.batch_size = size

    def encode_images(
        self, batch: np.ndarray | Sequence[np.ndarray], *, backbone: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        joint, behind = self._encoder.encode_images(batch, backbone=self._behind)
        logits = self._logits(Features(joint, None if behind is None else unit(behind)))
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32), None


class HeadAnswers(Encoder):
    """Probabilities that an exported head gives, f32 [n, C]. Raises ClipkitError for a folder that is none."""

    backend = "onnx"

    def __init__(self, folder: Path) -> None:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest.get("kind") != "head":
            raise ClipkitError(f"{folder} is no head")
        self.identity = identity_of(manifest)
        self.logit_scale, self.logit_bias = manifest["logit_scale"], manifest["logit_bias"]
        self._raw = manifest["pixels"] == "raw"
        self._alone = self._raw or not manifest["row_independent"]
        self._session = open_session(folder / "head.onnx", 1)

    def preprocess(self, image: Image.Image) -> np.ndarray:
        if self._raw:
            return np.asarray(image)
        from clipkit.images.transform import apply

        return apply(self.identity.preprocess, image)

    def encode_images(
        self, batch: np.ndarray | Sequence[np.ndarray], *, backbone: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        size = 1 if self._alone else len(batch)
        parts = [np.stack(list(batch[start : start + size])) for start in range(0, len(batch), size)]
        return np.concatenate([self._session.run(["probabilities"], {"pixels": part})[0] for part in parts]), None
