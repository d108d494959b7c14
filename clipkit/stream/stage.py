"""A stage: what one verb does to records, apart from how they are read, batched, ordered, resumed and written."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from clipkit.errors import RecordError
from clipkit.stream.record import Record


@dataclass(frozen=True, slots=True)
class Drop:
    """A record that goes, and why: the `drop` field of `--mark`, and the count in the summary."""

    by: str
    reason: str
    value: Any = None
    limit: Any = None


@dataclass(frozen=True, slots=True)
class Emit:
    """Several records from one, or records to named outputs: `[("train", record), ...]`; "" is the main output."""

    records: Sequence[tuple[str, Record]]


@dataclass(frozen=True, slots=True)
class Row:
    """What a stage that reads everything first remembers of one record, as bytes (see `stream/whole.py`)."""

    data: bytes


# What `process` says of one item: the record to keep, or one of the above, or the error that it met.
Outcome = Record | Drop | Emit | Row | RecordError


class Stage:
    """The seam between a method and the runner. Subclass it; keep argv, files, JSON and threads out.

    config: JSON. Everything that changes the output and nothing else; it gives the fingerprint of `--resume`.
    runtime: JSON. What only changes speed or where things are found (root, workers, cache folder).
    Both together are all that is sent to another process: `Stage.spec()` and `load_stage`.
    """

    verb: ClassVar[str] = ""
    reads: tuple[str, ...] = ()  # a record without one of these fails with `missing-field`
    adds: ClassVar[tuple[str, ...]] = ()
    defaults: ClassVar[dict[str, Any]] = {}  # of config
    inline: ClassVar[bool] = False  # True: so cheap that threads and a journal would cost more than the work

    batch_size: int = 1  # items a `process` call gets at most; set in setup() where a model decides
    lanes: int = 0  # `process` calls that may run at once; 0 = as many as there are workers (1: one GPU)
    item_bytes: int = 1 << 16  # the most one prepared item holds: the runner bounds read-ahead with it
    read_ahead: int = 0  # records in hand at least, bytes allowing: for a stage that waits more than it computes
    waits: bool = False  # `process` only waits for what `prepare` began; after `stop` it gives at once what came of it
    steps: tuple[str, ...] = ()  # the reasons it drops for, in their order: people see how many each took

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        self.config = {**self.defaults, **config}
        self.runtime = runtime or {}

    @property
    def opens_images(self) -> bool:
        """Whether images are opened, of which some are always broken: then `--on-error` is keep by default."""
        return "image" in self.reads

    @property
    def notices(self) -> Sequence[str]:
        """What a person should hear at the end of a run, wherever it is heard."""
        return ()

    @property
    def results(self) -> Sequence[str]:
        """Lines under the summary, which only who looks on gets."""
        return ()

    @property
    def facts(self) -> dict[str, Any]:
        """What it found besides, as JSON, for `--report`."""
        return {}

    @property
    def kept(self) -> bool:
        """Whether something of a run that stops is kept apart from the journal, for `--resume` to go on with."""
        return False

    @property
    def shortfall(self) -> int:
        """What failed after all was read, besides records: as where some of these did, a run ends with exit code 3."""
        return 0

    def setup(self) -> None:
        """Load models and open caches; called once per process, before the first record."""

    def fingerprint(self) -> dict[str, Any]:
        """What must be equal for a journalled outcome to be this run's (after setup: weights digests, labels)."""
        return self.config

    def stamp(self, record: Record) -> str:
        """What outside the line decides the outcome, such as an image's size and mtime; "" if nothing does."""
        return ""

    def prepare(self, record: Record) -> Any:
        """Make a record ready, in one of several threads: open, look up, decode. May raise RecordError."""
        return record

    def process(self, items: list[Any]) -> list[Outcome]:
        """Decide a batch of prepared items, one outcome each, in order; independent of who is in the batch.

        Kept records may be the (changed) records that were prepared. The runner calls it from up to `lanes` threads.
        """
        raise NotImplementedError

    def stands(self, lines: list[bytes]) -> bool:
        """Whether what an earlier run's kept record (its output lines) names is there still; else it is done anew."""
        return True

    def on_drop(self, record: Record, drop: Drop) -> None:
        """Told of each record that goes, in input order, in the main thread, also of those that an earlier run dropped.

        For what a stage counts of them: a run that was resumed counts the same.
        """

    def stop(self) -> None:
        """No more outcomes are wanted: give up what `prepare` began, so that a `process` that waits for it returns."""

    def close(self) -> None:
        """Release what setup took; called once, also after a failure."""

    def spec(self) -> dict[str, Any]:
        """All that another process needs to build this stage; JSON."""
        cls = type(self)
        return {"stage": f"{cls.__module__}:{cls.__qualname__}", "config": self.config, "runtime": self.runtime}


def policy(stage: Stage, on_error: str | None) -> str:
    """What becomes of a record that fails (fail, skip, keep): as asked for, else the default of the stage."""
    return on_error or ("keep" if stage.opens_images else "fail")


def load_stage(spec: dict[str, Any]) -> Stage:
    """The stage that `Stage.spec` described, not yet set up."""
    module, _, name = spec["stage"].partition(":")
    stage: Stage = getattr(importlib.import_module(module), name)(spec["config"], spec["runtime"])
    return stage
