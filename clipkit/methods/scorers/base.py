"""A scorer: what it needs of a record, and the values it gives. Several share one opening, one decode, one encoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from clipkit.features.embedder import Embedder
    from clipkit.stream.record import Record

# What a scorer may need: the image file's bytes; the picture decoded exactly, upright RGB; the caption.
DATA, PIXELS, TEXT = "data", "pixels", "text"


@dataclass(slots=True)
class Sample:
    """One record while it is scored; only what some scorer needs is there.

    data: the encoded image. pixels: the upright RGB picture, decoded exactly. text: the caption as it
    stands in the record.
    features: view -> unit row f32 [d] ("plain", "flip", or what a scorer's `views` named), once encoded.
    text_features: unit row f32 [d] of the caption, once encoded.
    """

    record: Record
    data: bytes | None = None
    pixels: Image.Image | None = None
    text: str | None = None
    features: dict[str, np.ndarray] = field(default_factory=dict)
    text_features: np.ndarray | None = None


class Scorer:
    """Measures one record at a time; what it gives depends on that record, its options and the model alone.

    options: JSON, what the user said of it; a scorer reads those it knows. Construction is cheap: it checks the options
    and raises UsageError. `setup` loads.

    needs: of DATA, PIXELS, TEXT. views: views of the image whose features it needs ("plain", "flip", ...), so that the
    verb loads a model; encodes_text: the caption's too. outputs: the fields it may write, dotted:
    `scores.clip`, `width`.
    """

    name: ClassVar[str] = ""
    needs: ClassVar[frozenset[str]] = frozenset()
    views: ClassVar[tuple[str, ...]] = ()
    encodes_text: ClassVar[bool] = False
    outputs: tuple[str, ...] = ()

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    @property
    def identity(self) -> str:
        """Who made the values, for `via`, where no model does: the name, and what else decides them."""
        return self.name

    def setup(self, embedder: Embedder | None) -> None:
        """Load what it needs; once, before the first record. `embedder` where a scorer of the run needs a model."""

    def look(self, sample: Sample) -> Any:
        """Measure what needs no features, in one of several threads; what it returns comes to `score`.

        Raises RecordError.
        """
        return None

    def score(self, sample: Sample, looked: Any) -> dict[str, Any]:
        """Field -> value, for fields among `outputs`; numbers under `scores.` may be None where there is no answer."""
        raise NotImplementedError
