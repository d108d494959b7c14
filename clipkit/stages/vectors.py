"""What stages share that look at the features of records, most of them at all before they decide: clusters, pruning."""

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
class FeatureItem:
    """A record's image or caption, ready for `FeatureStage.features_of`."""

    image: ImageItem | None = None
    text: str = ""
    vector: np.ndarray | None = None  # where a store has it


class FeatureStage(EncodingStage):
    """Sees of each record the unit features of its image or caption.

    config: as `open_embedder` takes it; by: image or text.
    """

    defaults: ClassVar[dict[str, Any]] = {**EncodingStage.defaults, "by": "image", "features": None}

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        super().__init__(config, runtime)
        if self.config["by"] not in BY:
            raise UsageError(f"by is {' or '.join(BY)}, not {self.config['by']!r}")
        stored = self.config["features"] and self.config["by"] == "image"
        self.reads = () if stored else (self.config["by"],)

    def stamp(self, record: Record) -> str:
        return self.embedder.stamp(record) if self.config["by"] == "image" else ""

    def ready(self, record: Record) -> FeatureItem:
        """For worker threads. Raises RecordError."""
        if self.config["by"] == "image":
            return FeatureItem(image=self.embedder.prepare(record))
        text = record.get("text")
        if text is None:
            raise missing_field("text", record)
        if not isinstance(text, str):
            raise RecordError("bad-field", "field 'text' is not a string")
        return FeatureItem(text=text, vector=self.embedder.stored_text(record, text))

    def features_of(self, items: list[FeatureItem]) -> list[np.ndarray | RecordError]:
        """The unit features f32 [d] of each; an error for what has none."""
        return [self._checked(row) for row in self._features(items)]

    def _features(self, items: list[FeatureItem]) -> np.ndarray:
        """Unit rows f32 [n, d]."""
        if self.config["by"] == "image":
            return self.embedder.encode([item.image for item in items if item.image is not None]).joint
        texts = [item.text for item in items if item.vector is None]
        fresh = iter(self.embedder.encode_texts(texts))
        dim = self.encoder.identity.dim
        rows = [item.vector if item.vector is not None else next(fresh) for item in items]
        return np.array(rows, np.float32).reshape(-1, dim)

    def _checked(self, row: np.ndarray) -> np.ndarray | RecordError:
        if not np.isfinite(row).all() or not row.any():
            return RecordError("not-finite", f"the features of its {self.config['by']} are not finite, or all zero")
        return row


@dataclass(slots=True)
class _Item:
    head: bytes
    what: FeatureItem


class VectorStage(FeatureStage, WholeStage):
    """Remembers of each record the unit features of its image or caption, behind a ticket and what `head` says.

    config: as `FeatureStage` takes it; seed: of the tickets, which put records in an order that
    hangs on nothing but their ids. Subclasses give `learn` and `decide`; `layout` reads their rows.
    fields: of a row besides the ticket, little-endian, in all a multiple of 8 bytes. row_options: those of the config
    that decide what is in a row.
    """

    fields: ClassVar[tuple[tuple[str, str], ...]] = ()
    row_options: ClassVar[tuple[str, ...]] = ("by", "seed", "exact_decode")
    defaults: ClassVar[dict[str, Any]] = {**FeatureStage.defaults, "seed": 0}

    def setup(self) -> None:
        super().setup()
        self.layout = FeatureRows(np.dtype([TICKET, *self.fields]), self.encoder.identity.dim)

    def fingerprint(self) -> dict[str, Any]:
        """About rows alone: what only decides may change between runs."""
        said = {name: self.config[name] for name in self.row_options}
        return said | {"encoder": str(self.encoder.identity), "space": self.encoder.space}

    def head(self, record: Record) -> bytes:
        """The `fields` of a record's row. Raises RecordError."""
        return b""

    def prepare(self, record: Record) -> _Item:
        drawn = ticket(name_of(record), self.config["seed"], self.verb)
        head = drawn[7::-1] + self.head(record)  # so that the numbers are in the order of the tickets
        return _Item(head, self.ready(record))

    def process(self, items: list[Any]) -> list[Outcome]:
        found = self.features_of([item.what for item in items])
        return [
            row if isinstance(row, RecordError) else Row(self.layout.join(item.head, row))
            for item, row in zip(items, found, strict=True)
        ]
