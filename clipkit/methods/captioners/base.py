"""A captioner: what it needs of a record, and the captions it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from clipkit.errors import RecordError
from clipkit.methods.parameters import Parametrised
from clipkit.stream.captions import Caption

if TYPE_CHECKING:
    import numpy as np

    from clipkit.features.embedder import Embedder, ImageItem


@dataclass(frozen=True, slots=True)
class Request:
    """One record for a captioner. name: its id, by which all that is random is drawn. captions: those it has, the one
    in use first. reference: its image as the record has it; data: reads and checks its bytes (RecordError), for those
    that need the image; image: the same, made ready for the run's Embedder, for those that ask the model. Each is read
    once. record: other fields that a prompt may name."""

    name: str
    captions: Sequence[Caption]
    reference: str = ""
    data: Callable[[], bytes] | None = None
    image: Callable[[], ImageItem] | None = None
    record: Any = None

    @property
    def text(self) -> str:
        """The caption in use, "" without any."""
        return self.captions[0].text if self.captions else ""


@dataclass(frozen=True, slots=True)
class Written:
    """captions: new ones, best first; none where there is nothing to say that the record lacks: it stays as it is.
    (An answer without a caption is a RecordError.)"""

    captions: Sequence[Caption]


@dataclass(kw_only=True)
class Captioner(Parametrised):
    """Writes captions; its fields made by `param` are what a user may set (`--set NAME=VALUE`).

    needs_image, needs_text: what a record must have. asks_model: it works with the `--model` of the run, whose
    `Embedder` it is given. waits: it only waits (for a server): then many records are begun at once.
    batch_size, lanes: of `finish`, as a stage has them. seed: of all that is random. takes: the names of the
    `options` it has use for, which are the flags of the verb that not every captioner has: recipe, the fields of
    `ServerOptions`, device. The stage sets those that were given before `setup`; device it gives to that.

    What it writes of a record depends on that record, its parameters, the seed and its model alone; where a server
    decides that, it says so in its docstring.
    """

    needs_image: ClassVar[bool] = True
    needs_text: ClassVar[bool] = False
    asks_model: ClassVar[bool] = False
    waits: ClassVar[bool] = False
    takes: ClassVar[frozenset[str]] = frozenset()

    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    batch_size: int = field(default=8, init=False)
    lanes: int = field(default=1, init=False)

    @classmethod
    def describe(cls) -> dict[str, Any]:
        """For `clipkit methods captioners --json`."""
        return {"about": cls.about(), "params": cls.described()}

    def setup(self, embedder: Embedder | None, device: str) -> None:
        """Load what it needs; once, before the first record. embedder: where it `asks_model`. device: auto, cpu, ..."""

    @property
    def identity(self) -> str:
        """Which model writes, `NAME@digest` where there is one: goes into each caption, `via` and the fingerprint."""
        raise NotImplementedError

    @property
    def decides(self) -> dict[str, Any]:
        """What else decides its captions, after setup, as JSON for the fingerprint: a recipe as it was read."""
        return {}

    def begin(self, request: Request) -> Any:
        """Make a request ready, in one of several threads: open, decode, send. Raises RecordError."""
        return request

    def finish(self, begun: list[Any]) -> list[Written | RecordError]:
        """What became of each that `begin` returned."""
        raise NotImplementedError

    @property
    def notices(self) -> Sequence[str]:
        """What a person should hear at the end of a run."""
        return ()

    @property
    def facts(self) -> dict[str, Any]:
        """What it found besides (retries, ...), as JSON, for `--report`."""
        return {}

    def stop(self) -> None:
        """No more answers are wanted: a `finish` that waits returns."""

    def close(self) -> None:
        """Release what setup took."""


def joint_features(embedder: Embedder, items: Sequence[ImageItem]) -> np.ndarray:
    """Unit features f32 [n, d] of pictures; an item remembers its own, so that asking twice costs nothing."""
    from clipkit.features.embedder import JOINT

    rows = embedder.encode(items).joint
    for item, row in zip(items, rows, strict=True):
        item.vectors, item.pixels = {JOINT: row}, None
    return rows
