"""Training: records become rows, and then a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from clipkit.errors import ClipkitError, RecordError
from clipkit.methods import LOSSES
from clipkit.stream.captions import captions
from clipkit.stream.record import Record, image_of
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Outcome
from clipkit.stream.stage import Row as Remembered
from clipkit.stream.whole import WholeStage
from clipkit.training.examples import RecordExamples, Row
from clipkit.training.settings import Settings

if TYPE_CHECKING:
    from clipkit.models.open_clip import OpenClipEncoder


class Train(WholeStage):
    """Trains a model on records; one record in the end says what came of it.

    config: model, device, settings (`Settings`, as JSON). runtime: root, confine, remote; run: the folder.
    """

    verb: ClassVar[str] = "train"
    reads: tuple[str, ...] = ("image",)
    inline: ClassVar[bool] = True  # a row costs nothing: what costs resumes by checkpoints
    defaults: ClassVar[dict[str, Any]] = {"device": "auto", "settings": {}}
    doing: str = "training"

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        super().__init__(config, runtime)
        self.settings = msgspec.convert(self.config["settings"], Settings)
        self._said: dict[str, Any] = {}

    @property
    def summarises(self) -> bool:
        return True

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._row(record) for record in items]

    def _row(self, record: Record) -> Outcome:
        try:
            texts, negatives = captions(record), captions(record, negative=True)
            if not texts:
                raise RecordError("missing-text", "no caption: neither 'text' nor 'texts'")
            row = Row(record.id or record.digest.hex(), image_of(record), texts, negatives)
        except RecordError as error:
            return error
        return Remembered(msgspec.msgpack.encode(row))

    def learn(self, rows: Rows) -> None:
        if not len(rows):
            raise ClipkitError("there is nothing to train on")
        from clipkit.images.opener import Opener
        from clipkit.training.folder import RunFolder
        from clipkit.training.loader import Loader
        from clipkit.training.loop import Step, Trainer
        from clipkit.training.student import Student

        settings = self.settings
        loss = LOSSES.get(settings.loss).from_settings(settings.loss_settings)
        runtime = self.runtime
        opener = Opener(runtime.get("root"), confine=runtime.get("confine", False), remote=runtime.get("remote", False))
        encoder = self._encoder(loss.bias)
        student = Student(encoder, settings, loss)
        examples = RecordExamples(rows, opener, settings.seed)
        loader = Loader(examples, encoder, settings, size=settings.batch_size)
        folder = RunFolder(runtime["run"])
        folder.path.mkdir(exist_ok=True)
        trainer = Trainer(student, loss, settings)

        def hear(step: Step) -> None:
            self.doing = f"step {step.step:,} of {settings.steps:,}, loss {step.loss:.3f}"
            folder.hear(step)
            self._said = {"steps": step.step, "loss": round(step.loss, 6), "failed": dict(loader.failed)}

        try:
            trainer.run(loader, hear)
        finally:
            loader.close()
        encoder.save_state(folder.path / "model", trainer.weights())

    def _encoder(self, bias: float | None) -> OpenClipEncoder:
        from clipkit.models import listing
        from clipkit.models.load import load
        from clipkit.models.open_clip import OpenClipEncoder, untrained

        name, device = self.config["model"], self.config["device"]
        if name in listing.architectures():
            return untrained(name, seed=self.settings.seed, device=device, bias=bias)
        encoder = load(name, device=device, precision="f32")
        if not isinstance(encoder, OpenClipEncoder):
            raise ClipkitError(f"{name} cannot be trained: it is no open_clip model")
        return encoder

    def summary(self) -> Iterator[Record]:
        yield Record({"model": self.config["model"], **self._said})

    @property
    def facts(self) -> dict[str, Any]:
        return self._said
