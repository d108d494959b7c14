"""Features of images and captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from clipkit.errors import ClipkitError, RecordError
from clipkit.features.embedder import ImageItem
from clipkit.features.inline import pack
from clipkit.features.store import describe_identity
from clipkit.features.writer import Layout
from clipkit.stages.encoding import EncodingStage
from clipkit.stream.fieldnames import mapping_hint
from clipkit.stream.record import Record
from clipkit.stream.stage import Outcome


@dataclass(slots=True)
class _Item:
    record: Record
    image: ImageItem | None
    text: str | None


class Embed(EncodingStage):
    """Adds `emb`: `image`, `text` and `backbone` as base64 f16, those that the record gives and the config asks for.

    config: as `open_embedder` takes it, and image, text, backbone (bools; backbone only with image);
    store: the features go to a feature store, so that every record needs an id.
    """

    verb: ClassVar[str] = "embed"
    adds: ClassVar[tuple[str, ...]] = ("emb",)
    defaults: ClassVar[dict[str, Any]] = {
        **EncodingStage.defaults,
        "image": True,
        "text": True,
        "backbone": False,
        "store": False,
    }

    @property
    def opens_images(self) -> bool:
        return True  # though no record has to have one

    def setup(self) -> None:
        super().setup()
        encoder = self.encoder
        if self.config["backbone"] and encoder.backbone_dim is None:
            raise ClipkitError(f"{encoder.identity.name} has no backbone features", "leave out --backbone")
        joint, behind = encoder.identity.dim, encoder.backbone_dim or 0
        widths = {"image": joint, "text": joint, "backbone": behind}
        self.dims = {output: width for output, width in widths.items() if self.config[output]}

    def layout(self) -> Layout:
        """What a store of these features holds (after setup)."""
        return Layout(describe_identity(self.encoder.identity), self.dims)

    def stamp(self, record: Record) -> str:
        return super().stamp(record) if self.config["image"] else ""

    def prepare(self, record: Record) -> _Item:
        if self.config["store"] and not record.id:
            raise RecordError("missing-id", "a feature store needs an id to join by", "add a field id, uid or key")
        image, text = self._field(record, "image"), self._field(record, "text")
        if image is None and text is None:
            wanted = [name for name in ("image", "text") if self.config[name]]
            raise RecordError("missing-field", f"no field {' or '.join(wanted)}", mapping_hint(wanted, record))
        prepared = self.embedder.prepare_image(image, backbone=self.config["backbone"]) if image else None
        return _Item(record, prepared, text)

    def process(self, items: list[Any]) -> list[Outcome]:
        vectors: list[dict[str, np.ndarray]] = [{} for _ in items]
        with_image = [n for n, item in enumerate(items) if item.image is not None]
        with_text = [n for n, item in enumerate(items) if item.text is not None]
        if with_image:
            found = self.embedder.encode([items[n].image for n in with_image], backbone=self.config["backbone"])
            for row, n in enumerate(with_image):
                vectors[n]["image"] = found.joint[row]
                if found.backbone is not None:
                    vectors[n]["backbone"] = found.backbone[row]
        if with_text:
            for n, row in zip(with_text, self.embedder.encode_texts([items[n].text for n in with_text]), strict=True):
                vectors[n]["text"] = row
        return [self._kept(item.record, found) for item, found in zip(items, vectors, strict=True)]

    def _field(self, record: Record, name: str) -> str | None:
        """A field that is asked for and there. Raises RecordError where it isn't a string."""
        value = record.get(name) if self.config[name] else None
        if value is not None and not isinstance(value, str):
            raise RecordError("bad-field", f"field {name!r} is not a string")
        return value or None

    def _kept(self, record: Record, vectors: dict[str, np.ndarray]) -> Record:
        """The record with its features; earlier ones of the same kind are gone, others stay."""
        if record.id and record.get("id") is None:
            record["id"] = record.id  # features are joined by it: it must not hang on where the image lies
        before = record.get("emb")
        others = (
            {name: ref for name, ref in before.items() if name not in self.dims} if isinstance(before, dict) else {}
        )
        packed = {name: pack(vectors[name]) for name in self.dims if name in vectors}
        record.add("emb", others | packed, self.via)
        return record
