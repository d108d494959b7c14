"""What stages share that look at the features of all records before they decide: clusters, pruning, retrieval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from clipkit.errors import RecordError, UsageError
from clipkit.features.rows import FeatureRows
from clipkit.stages.encoding import EncodingStage
from clipkit.stream.fieldnames import missing_field
from clipkit.stream.hashing import name_of, ticket
from clipkit.stream.record import Record
from clipkit.stream.stage import Outcome, Row
from clipkit.stream.whole import WholeStage

if TYPE_CHECKING:
    from clipkit.features.embedder import ImageItem

BY: Final = ("image", "text")
TICKET: Final = ("ticket", "<u8")


@dataclass(slots=True)
class _Item:
    head: bytes
    image: ImageItem | None = None
    text: str = ""
    vector: np.ndarray | None = None  # where a store has it


class VectorStage(EncodingStage, WholeStage):
    """Remembers of each record the unit features of its image or caption, behind a ticket and what `head` says.

    config: as `open_embedder` takes it; by: image or text; seed: of the tickets, which put records in an order that
    hangs on nothing but their ids. Subclasses give `learn` and `decide`; `layout` reads their rows.
    fields: of a row besides the ticket, little-endian, in all a multiple of 8 bytes. row_options: those of the config
    that decide what is in a row.
    """

    fields: ClassVar[tuple[tuple[str, str], ...]] = ()
    row_options: ClassVar[tuple[str, ...]] = ("by", "seed", "exact_decode")
    defaults: ClassVar[dict[str, Any]] = {**EncodingStage.defaults, "by": "image", "seed": 0, "features": None}

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        super().__init__(config, runtime)
        if self.config["by"] not in BY:
            raise UsageError(f"by is {' or '.join(BY)}, not {self.config['by']!r}")
        stored = self.config["features"] and self.config["by"] == "image"
        self.reads = () if stored else (self.config["by"],)

    def setup(self) -> None:
        super().setup()
        self.layout = FeatureRows(np.dtype([TICKET, *self.fields]), self.encoder.identity.dim)

    def fingerprint(self) -> dict[str, Any]:
        """About rows alone: what only decides may change between runs."""
        said = {name: self.config[name] for name in self.row_options}
        return said | {"encoder": str(self.encoder.identity), "space": self.encoder.space}

    def stamp(self, record: Record) -> str:
        return self.embedder.stamp(record) if self.config["by"] == "image" else ""

    def head(self, record: Record) -> bytes:
        """The `fields` of a record's row. Raises RecordError."""
        return b""

    def prepare(self, record: Record) -> _Item:
        drawn = ticket(name_of(record), self.config["seed"], self.verb)
        item = _Item(drawn[7::-1] + self.head(record))  # so that the numbers are in the order of the tickets
        if self.config["by"] == "image":
            item.image = self.embedder.prepare(record)
            return item
        text = record.get("text")
        if text is None:
            raise missing_field("text", record)
        if not isinstance(text, str):
            raise RecordError("bad-field", "field 'text' is not a string")
        item.text, item.vector = text, self.embedder.stored_text(record, text)
        return item

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._row(item, row) for item, row in zip(items, self._features(items), strict=True)]

    def _features(self, items: list[_Item]) -> np.ndarray:
        """Unit rows f32 [n, d]."""
        if self.config["by"] == "image":
            return self.embedder.encode([item.image for item in items if item.image is not None]).joint
        texts = [item.text for item in items if item.vector is None]
        fresh = iter(self.embedder.encode_texts(texts))
        dim = self.encoder.identity.dim
        rows = [item.vector if item.vector is not None else next(fresh) for item in items]
        return np.array(rows, np.float32).reshape(-1, dim)

    def _row(self, item: _Item, features: np.ndarray) -> Outcome:
        if not np.isfinite(features).all() or not features.any():
            return RecordError("not-finite", f"the features of its {self.config['by']} are not finite, or all zero")
        return Row(self.layout.join(item.head, features))
