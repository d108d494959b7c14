"""Benchmarks: named sets whose items must not be in a training set, and how each kind of them is read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import numpy as np

from clipkit.errors import RecordError, UsageError
from clipkit.features.store import REMAKE, Store, kind_of
from clipkit.methods.contamination import hashlist
from clipkit.methods.dedupers.base import Deduper, Look
from clipkit.methods.dedupers.looking import Looking, Seen
from clipkit.methods.dedupers.references import LeftOut
from clipkit.stream.engine import execute
from clipkit.stream.record import Record
from clipkit.stream.sources import BadLine, SourceOptions, open_source
from clipkit.stream.stage import Outcome, Stage

if TYPE_CHECKING:
    from clipkit.models.base import Identity

_PACKED = (".gz", ".zst")
_ROWS = 8192  # of a store, at once


class Signature(NamedTuple):
    """What is compared of an image. keys: of each method, b"" where it has none. features: unit length f32 [d]."""

    keys: Sequence[bytes]
    features: np.ndarray | None


@dataclass(frozen=True)
class Reading:
    """How benchmarks are read.

    looking: at images, with the methods that count; without a feature store. identity: of the model that encodes, if
    one does. stage: a stage whose batches, lanes and item size fit. workers: threads. note: takes notices for people.
    """

    looking: Looking
    identity: Identity | None
    left_out: LeftOut
    stage: Stage
    workers: int
    root: str | None
    confine: bool
    note: Callable[[str], None]


class Benchmark:
    """A named set. What `path` names is checked when it is made; nothing large is read yet."""

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path = name, path

    def usable(self, method: Deduper) -> bool:
        """Whether a method can compare its items with records."""
        return True

    def refuse(self, by: str) -> UsageError:
        """The error where none of the methods `by` can."""
        raise NotImplementedError

    def items(self, reading: Reading) -> Iterator[tuple[str, Signature]]:
        """Its items that can be compared: their names and what is compared of them.

        Those that cannot be read go to `reading.left_out`.
        """
        raise NotImplementedError


class Features(Benchmark):
    """A feature store, compared by the methods that encode; images are not opened."""

    def usable(self, method: Deduper) -> bool:
        return method.encodes

    def refuse(self, by: str) -> UsageError:
        return UsageError(
            f"--against {self.path} is a feature store, which --by {by} does not compare", "add semantic to --by"
        )

    def items(self, reading: Reading) -> Iterator[tuple[str, Signature]]:
        assert reading.identity is not None
        store = Store(self.path)
        store.require(reading.identity)
        nothing = [b""] * len(reading.looking.methods)
        for ids, block in store.blocks("image", _ROWS):
            for name, row in zip(ids, block, strict=True):
                if np.isfinite(row).all() and row.any():
                    yield name, Signature(nothing, row)
                else:
                    said = f"the features of {name!r} are not finite, or all zero"
                    reading.left_out.failed(RecordError("not-finite", said, REMAKE), self.path)


class Digests(Benchmark):
    """A list of digests (`hashlist`), compared by the methods that it has digests for."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name, path)
        self._digests = hashlist.read(path)
        self._methods = {digest.method for digest in self._digests}

    def usable(self, method: Deduper) -> bool:
        return method.name in self._methods or not self._methods

    def refuse(self, by: str) -> UsageError:
        held = " and ".join(sorted(self._methods))
        return UsageError(f"--against {self.path} has digests for {held}, not for --by {by}", f"add {held} to --by")

    def items(self, reading: Reading) -> Iterator[tuple[str, Signature]]:
        methods = reading.looking.methods
        for digest in self._digests:
            keys = [digest.value[: m.width] if m.name == digest.method else b"" for m in methods]
            if any(keys):
                yield digest.name, Signature(keys, None)


class Records(Benchmark):
    """Any source of records, compared by all methods: digests that they carry are taken, else images opened."""

    def items(self, reading: Reading) -> Iterator[tuple[str, Signature]]:
        source = self._source(reading)
        results = execute(_Signing(reading), source, workers=reading.workers, decide=_decided)
        with contextlib.closing(cast(Any, results)):
            for item, outcome in results:
                if outcome is _CAME_FAILED:
                    reading.left_out.came_failed(item.where)
                elif isinstance(outcome, RecordError):
                    reading.left_out.failed(outcome, item.where)
                else:
                    yield item.id or Path(item.where).name, outcome

    def _source(self, reading: Reading) -> Iterator[Record | BadLine]:
        options = SourceOptions(paths=(self.path,), dup_ids="suffix", root=reading.root, confine=reading.confine)
        return iter(open_source(options, note=lambda message: reading.note(f"--against {self.name}: {message}")))

    def check(self) -> None:
        """Raise UsageError where there is no such source."""
        try:
            open_source(SourceOptions(paths=(self.path,)))
        except UsageError as error:
            raise UsageError(f"--against: {error.message}", error.hint) from None


class _Signing(Stage):
    """Makes signatures on all cores. Its outcomes are read above, and by no runner."""

    verb: ClassVar[str] = ""

    def __init__(self, reading: Reading) -> None:
        super().__init__({})
        self._looking = reading.looking
        self.batch_size, self.lanes = reading.stage.batch_size, reading.stage.lanes
        self.item_bytes = reading.stage.item_bytes

    def prepare(self, record: Record) -> Seen:
        return self._looking.see(Look(record, self._looking.opener))

    def process(self, items: list[Any]) -> list[Outcome]:
        return cast("list[Outcome]", signatures(self._looking, items))


def signatures(looking: Looking, seen: Sequence[Seen]) -> list[Signature | RecordError]:
    """What is compared of each; features of zeros point nowhere and are none."""
    return [
        row if isinstance(row, RecordError) else Signature(one.keys, row if row is not None and row.any() else None)
        for one, row in zip(seen, looking.features(seen), strict=True)
    ]


_CAME_FAILED = object()


def _decided(item: Record | BadLine) -> Any:
    if isinstance(item, BadLine):
        return item.error
    try:
        return _CAME_FAILED if item.get("error") is not None else None
    except RecordError as error:
        return error


def parse(words: Sequence[str]) -> dict[str, str]:
    """`[NAME=]EVAL` words as {name: path}; the name is that of the file or folder where none is given.

    A path that holds `=` and is there wins. Raises UsageError for an empty or `-` path, and for two of one name.
    """
    named: dict[str, str] = {}
    for word in words:
        before, equals, after = word.partition("=")
        given = bool(equals) and "/" not in before and not os.path.lexists(word)
        name, path = (before.strip(), after) if given else (_stem(word), word)
        if not name or not path:
            raise UsageError(
                f"--against takes EVAL or NAME=EVAL, not {word!r}", "for example: --against coco=val.jsonl"
            )
        if path == "-":
            raise UsageError("--against -: standard input is for records", "name a file or a folder")
        if name in named:
            raise UsageError(f"two benchmarks are called {name!r}", "name them: --against NAME=EVAL")
        named[name] = path
    return named


def _stem(path: str) -> str:
    base = os.path.basename(os.path.abspath(path.removeprefix("@")))
    if os.path.isdir(path):
        return base
    for suffix in _PACKED:
        base = base.removesuffix(suffix)
    return os.path.splitext(base)[0]


def open_benchmark(name: str, path: str) -> Benchmark:
    """What a path names: a feature store, a list of digests (.txt), or any source of records.

    Raises ClipkitError for what is not there, and for a list with a line that is no digest.
    """
    if kind_of(Path(path)):
        return Features(name, path)
    if path.lower().endswith(".txt") and os.path.isfile(path):
        return Digests(name, path)
    records = Records(name, path)
    records.check()
    return records
