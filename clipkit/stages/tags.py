"""How often each concept of a list occurs in images, or in captions and images (Udandarao et al., 2024)."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

from clipkit.errors import UsageError
from clipkit.methods.concepts.tags import THRESHOLD, Tagger
from clipkit.stages.concepts import CountConcepts
from clipkit.stages.encoding import EncodingStage
from clipkit.stream.record import Record, encode_json
from clipkit.stream.stage import Outcome


class CountTags(EncodingStage, CountConcepts):
    """Counts concepts in images, by `Tagger`, and where `text` is true in captions as well.

    config: as CountConcepts and `open_embedder` take it; text; templates ([] = the model's own); threshold.
    With `features` it reads no images, only ids.
    """

    inline: ClassVar[bool] = False
    defaults: ClassVar[dict[str, Any]] = {
        **EncodingStage.defaults,
        "text": True,
        "templates": [],
        "threshold": THRESHOLD,
        "features": None,
    }

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        super().__init__(config, runtime)
        if not 0 < self.config["threshold"] < 1:
            raise UsageError(f"--threshold is a probability, above 0 and below 1, not {self.config['threshold']:g}")
        text = ("text",) if self.config["text"] else ()
        self.reads = text if self.config["features"] else ("image", *text)
        self.sides = ("text", "image", "both") if text else ("image",)

    def setup(self) -> None:
        EncodingStage.setup(self)
        self._templates = tuple(self.config["templates"] or self.encoder.default_templates)
        self._tagger = Tagger(
            self.embedder, self.config["groups"], self._templates, self.encoder.logit_scale, self.config["threshold"]
        )
        CountConcepts.setup(self)

    def settings(self) -> dict[str, Any]:
        templates = hashlib.blake2b(encode_json(self._templates), digest_size=6).hexdigest()
        tags = {"model": str(self.encoder.identity), "templates": templates, "threshold": self.config["threshold"]}
        return {**super().settings(), "tags": tags}

    def prepare(self, record: Record) -> Any:
        return self.named(record) if self.config["text"] else [], self.embedder.prepare(record)

    def process(self, items: list[Any]) -> list[Outcome]:
        features = self.embedder.encode([image for _, image in items]).joint
        return [self.row(named, tags) for (named, _), tags in zip(items, self._tagger.tags(features), strict=True)]
