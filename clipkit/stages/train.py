"""Training: records become rows, and then a run."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec

from clipkit.errors import ClipkitError, RecordError, UsageError
from clipkit.methods import LOSSES
from clipkit.stream.record import Record
from clipkit.stream.sources import BadLine
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Drop, Emit, Outcome
from clipkit.stream.stage import Row as Remembered
from clipkit.stream.whole import WholeStage
from clipkit.training import card, checkpoints, evaluating, planning, watch
from clipkit.training.examples import RecordExamples, row_of
from clipkit.training.folder import RunFolder, typed
from clipkit.training.shards import Shard, ShardExamples, shard_of
from clipkit.training.survey import Survey, shared

if TYPE_CHECKING:
    from clipkit.methods.losses.base import Loss
    from clipkit.models.open_clip import OpenClipEncoder
    from clipkit.stream.signals import Patience
    from clipkit.training.distributed import Alone
    from clipkit.training.session import Session
    from clipkit.training.settings import Settings

_DIGITS: Final = 6


class Train(WholeStage):
    """Trains a model on records; one record in the end says what came of it.

    Records of the split test are dropped; those of val are measured on.
    config: model, device; settings: fields of `Settings`, those that are not there get what suits model and data;
    epochs or samples instead of settings' steps; shards: a record is a tar shard, as `shards.shard_records` makes them.
    runtime: root, confine, remote; run: the folder, None to leave nothing; resume, restart: what is done with what is
    there; eval: the sources that only measure, by name; checkpoint_every, eval_every: in steps; keep: checkpoints; log:
    as `watch.Kind` has them.
    tell: says at once what a person should hear before hours go by; without it, it is said in the end.
    """

    verb: ClassVar[str] = "train"
    reads: tuple[str, ...] = ("image",)
    inline: ClassVar[bool] = True  # a row costs nothing: what costs resumes by checkpoints
    defaults: ClassVar[dict[str, Any]] = {
        "device": "auto",
        "settings": {},
        "epochs": None,
        "samples": None,
        "shards": False,
    }
    doing: str = "getting ready to train"

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        super().__init__(config, runtime)
        self._asked = {**self.config["settings"], "epochs": self.config["epochs"], "samples": self.config["samples"]}
        self._trained = _has_weights(self.config["model"])
        planning.check(self._asked, trained=self._trained)
        LOSSES.entry(self._asked.get("loss") or "clip")
        watch.check(self.runtime.get("log", "jsonl"))
        run = self.runtime.get("run")
        self._folder = RunFolder(run, self.runtime.get("keep", 2)) if run else None
        if self._folder:
            self._folder.check(resume=self._resume, restart=self._restart, model=self.config["model"])
        self._measured_on: Rows | None = None
        self._heard: list[str] = []
        self.tell: Callable[[str], None] = self._heard.append
        self._lost: Counter[str] = Counter()
        self._unmeasured: Counter[str] = Counter()
        self._survey: Survey | None = None
        self._session: Session | None = None
        if self.config["shards"]:
            self.reads = ()

    @property
    def opens_images(self) -> bool:
        return True

    @property
    def summarises(self) -> bool:
        return True

    def setup(self) -> None:
        self._measured_on = Rows()
        if self._asked.get("loss_settings"):
            self._loss(self._asked.get("loss") or "clip", self._asked["loss_settings"])

    @property
    def _resume(self) -> bool:
        return bool(self.runtime.get("resume")) and not self._restart

    @property
    def _restart(self) -> bool:
        return bool(self.runtime.get("restart"))

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._row(record) for record in items]

    def _row(self, record: Record) -> Outcome:
        split = record.get("split")
        if split == "test":
            return Drop(self.verb, "split", split)
        try:
            if split == "val":
                assert self._measured_on is not None
                self._measured_on.append(record.id or "", evaluating.row_of(record))
                return Emit(())
            if self.config["shards"]:
                return Remembered(msgspec.msgpack.encode(shard_of(record, self.runtime.get("root"))))
            return Remembered(row_of(record))
        except RecordError as error:
            return error

    def lost(self, item: Record | BadLine, kind: str) -> None:
        measures = False
        with contextlib.suppress(RecordError):
            measures = isinstance(item, Record) and item.get("split") == "val"
        (self._unmeasured if measures else self._lost)[kind] += 1

    def learn(self, rows: Rows) -> None:
        if not len(rows):
            hint = "expected records with an image and a text"
            if set(self._lost) == {"missing-text"}:
                hint += ": `clipkit recaption` makes captions"
            raise ClipkitError(f"there is nothing to train on{_told(self._lost)}", hint)
        self._look(rows)
        from clipkit.images.opener import Opener

        self._opener = Opener.of(self.runtime)
        examples = self._examples(rows)
        # What cannot be is refused before torch is loaded.
        planning.plan(self._asked, len(examples), trained=self._trained, world=_world())
        from clipkit.models.device import choose
        from clipkit.stream.signals import Patience
        from clipkit.training.distributed import launched, local_rank, processes

        device = choose(self.config["device"])
        if device == "cuda" and launched():
            device = f"cuda:{local_rank()}"
        with Patience(self._stopping) as patience, processes(device) as group:
            self._train(examples, device, group, patience)

    def _look(self, rows: Rows) -> None:
        """At what there is, before torch is loaded."""
        measured = self._measured_on
        assert measured is not None
        if self.runtime.get("eval") and not len(measured):
            what = f"--eval {' '.join(self.runtime['eval'])}: no record can be measured{_told(self._unmeasured)}"
            raise ClipkitError(what, "expected records with an image, and a label or a text")
        if self.config["shards"]:
            return
        self._survey = Survey(self._asked.get("weights") or {}, self._asked.get("prefixes") or {})
        self._survey.look(rows)
        if len(measured) and (both := shared(rows, measured)):
            self.tell(f"{both:,} of the records to measure on are trained on, too: their figures flatter the model")

    def _examples(self, rows: Rows) -> RecordExamples | ShardExamples:
        seed = self._asked.get("seed") or 0
        if not self.config["shards"]:
            return RecordExamples(rows, self._opener, seed)
        shards = ShardExamples([msgspec.msgpack.decode(row, type=Shard) for row in rows.data()], self._opener, seed)
        self._heard += shards.notices
        return shards

    def _train(self, examples: RecordExamples | ShardExamples, device: str, group: Alone, patience: Patience) -> None:
        from clipkit.models.load import load
        from clipkit.training.checkpoints import Origin
        from clipkit.training.evaluating import Evaluation
        from clipkit.training.loader import Loader
        from clipkit.training.loop import Trainer
        from clipkit.training.session import Habits, Session
        from clipkit.training.student import Student

        runtime = self.runtime
        settings = planning.plan(self._asked, len(examples), trained=self._trained, device=device, world=group.world)
        loss = self._loss(settings.loss, settings.loss_settings)
        encoder = self._encoder(device, settings, loss)
        teacher = load(settings.teacher, device=device) if settings.teacher else None
        student = Student(encoder, settings, loss, teacher)
        many = getattr(loss, "captions", 1) if loss.texts == "many" else 1
        for notice in self._survey.notices(loss, many) if self._survey else ():
            self.tell(notice)

        def loader(first: int) -> Loader:
            return Loader(
                examples,
                encoder,
                settings,
                size=settings.batch_size // group.world,
                first=first,
                rank=group.rank,
                world=group.world,
                captions=many,
                negatives=many if loss.negatives else 0,
                teacher=teacher.identity.preprocess if teacher else None,
            )

        self._session = Session(
            Trainer(student, loss, settings, group),
            Origin(settings.to_json(), examples.digest, encoder.identity.digest, group.world),
            self._folder,
            Habits(
                runtime.get("checkpoint_every") or 0, runtime.get("eval_every") or 0, runtime.get("log", "jsonl")
            ).over(settings.steps),
            Evaluation(self._measured_on, self._opener) if self._measured_on else None,
            self.config["model"],
            len(examples),
            self._say,
        )
        self._session.run(loader, patience, resume=self._resume, restart=self._restart)

    def _stopping(self) -> None:
        self.doing = "stopping after this step; Ctrl-C again stops at once"

    def _say(self, doing: str) -> None:
        self.doing = doing

    def _loss(self, name: str, given: dict[str, str]) -> Loss:
        loss: Loss = LOSSES.get(name).from_settings(given)
        return loss

    def _encoder(self, device: str, settings: Settings, loss: Loss) -> OpenClipEncoder:
        from clipkit.models.load import load
        from clipkit.models.open_clip import OpenClipEncoder, untrained

        name = self.config["model"]
        if not self._trained:
            return untrained(name, seed=settings.seed, device=device, bias=loss.bias)
        encoder = load(name, device=device, precision="f32")
        assert isinstance(encoder, OpenClipEncoder)  # the others were refused by their names
        return encoder

    @property
    def kept(self) -> bool:
        return self._folder is not None and self._session is not None and self._folder.resumable

    @property
    def shortfall(self) -> int:
        return len(self._session.reached.failed) if self._session else 0

    def summary(self) -> Iterator[Record]:
        yield Record(self.facts)

    @property
    def facts(self) -> dict[str, Any]:
        if self._session is None:
            return {}
        session = self._session
        settings = session.trainer.settings
        return {
            "model": self.config["model"],
            "steps": session.reached.step,
            "samples": session.reached.step * settings.batch_size,
            "loss": None if session.loss is None else round(session.loss, _DIGITS),
            "eval": session.figures,
            "best": card.best(session.reached),
            "failed": dict(sorted(Counter(session.reached.failed.values()).items())),
        }

    @property
    def results(self) -> list[str]:
        if self._session is None or self._folder is None:
            return []
        figures = self._session.figures or {}
        lines = [f"  {name} {value:.3f}" for name, value in figures.items() if name != "n"]
        return [*lines, f"  the model: --model {typed(self._folder.model)}"]

    @property
    def notices(self) -> list[str]:
        heard = [*self._heard, *(self._session.notices if self._session else ())]
        if self._session and self._survey is None:  # else it was said before
            heard += self._session.trainer.notices
        if self._session and (failed := self._session.reached.failed):
            kinds = ", ".join(f"{kind} {count:,}" for kind, count in Counter(failed.values()).most_common())
            count = f"{len(failed):,} pictures" + (" or more" if len(failed) >= checkpoints.MOST_FAILED else "")
            heard.append(f"{count} could not be used while training: {kinds}")
        return [*heard, *super().notices]

    def close(self) -> None:
        if self._measured_on is not None:
            self._measured_on.close()


def _told(kinds: Counter[str]) -> str:
    """Kinds of errors and how often each was, behind a colon; "" for none."""
    said = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
    return f": {said}" if said else ""


def _has_weights(model: str) -> bool:
    """Whether a model comes with weights, or is an architecture to begin anew with. Raises UsageError for what cannot
    be trained at all."""
    from clipkit.models import listing
    from clipkit.models.names import parse

    listing.package("training")
    if model in listing.architectures():
        return False
    if parse(model).kind in ("lite", "exported"):
        hint = "one of open_clip: tiny-ViT-64 to begin anew, ViT-B-32:laion2b_s34b_b79k to go on, for example"
        raise UsageError(f"{model} is made to be used, and cannot be trained", hint)
    return True


def _world() -> int:
    """How many processes torchrun started."""
    return int(os.environ.get("WORLD_SIZE", "1"))
