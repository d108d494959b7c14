"""A scorer: what it needs of a record, and the values it gives. Several share one opening, one decode, one encoding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from clipkit.features.embedder import Embedder
    from clipkit.features.views import View
    from clipkit.stream.record import Record

# What a scorer may need: the image file's bytes; the picture decoded exactly, upright RGB; the caption.
DATA, PIXELS, TEXT = "data", "pixels", "text"


@dataclass(slots=True)
class Sample:
    """One record while it is scored; only what some scorer needs is there.

    data: the encoded image. pixels: the upright RGB picture, decoded exactly; both are there for `look` alone, so that
    no batch of decoded pictures waits for a model. text: the caption as it stands in the record.
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
    `scores.clip`, `width`. takes: the options it reads.
    """

    name: ClassVar[str] = ""
    takes: ClassVar[tuple[str, ...]] = ()
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

    def maker(self, field: str, model: str) -> str:
        """Who made a value, for `via`: of a scorer that asks the run's model (`NAME@digest`), both of them."""
        return f"{self.identity}/{model}" if self.views or self.encodes_text else self.identity

    def setup(self, embedder: Embedder | None) -> None:
        """Load what it needs; once, before the first record. `embedder` where a scorer of the run needs a model."""

    def look(self, sample: Sample) -> Any:
        """Measure what needs no features, in one of several threads; what it returns comes to `score`.

        Raises RecordError.
        """
        return None

    def view(self, name: str, looked: Any) -> View:
        """What one of its `views` shows of the picture, given what `look` returned."""
        from clipkit.features.views import STANDARD

        return STANDARD[name]

    def score(self, sample: Sample, looked: Any) -> dict[str, Any]:
        """Field -> value, for fields among `outputs`; numbers under `scores.` may be None where there is no answer."""
        raise NotImplementedError


class Remembered(Protocol):
    """What a `SetScorer` remembered of each record, by its number in input order, on disk."""

    def __len__(self) -> int: ...

    def ids(self) -> Iterator[str]:
        """The ids, in input order."""

    def take(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """What was remembered of these records."""


class SetScorer(Scorer):
    """Measures a record among all others, so that everything is read first.

    `remember` gives the bytes to keep of each record, `learn` sees them all, and `score_of` is asked for each. What is
    remembered doesn't depend on the options, which may thus change when a stopped run goes on.
    """

    def remember(self, sample: Sample) -> bytes:
        """What is to know of one record, from its features."""
        raise NotImplementedError

    def learn(self, remembered: Remembered) -> None:
        """Look at all records; what is random hashes ids."""
        raise NotImplementedError

    def score_of(self, number: int) -> dict[str, Any]:
        """As `score`, of the record with this number, once all are known."""
        raise NotImplementedError
