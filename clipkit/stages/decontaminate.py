"""Records that overlap a benchmark go."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final

from clipkit.errors import RecordError, UsageError
from clipkit.methods import DEDUPERS
from clipkit.methods.contamination.benchmarks import Benchmark, Reading, open_benchmark, parse, signatures
from clipkit.methods.contamination.references import References
from clipkit.methods.contamination.tally import Tally
from clipkit.methods.dedupers.base import Deduper, Look
from clipkit.methods.dedupers.looking import Looking, Seen
from clipkit.methods.dedupers.references import LeftOut
from clipkit.stream.engine import available_cores
from clipkit.stream.record import Record, encode_json
from clipkit.stream.sink import FileSink
from clipkit.stream.stage import Drop, Outcome, Stage, policy

if TYPE_CHECKING:
    from clipkit.features.embedder import Embedder
    from clipkit.images.opener import Opener

METHODS: Final = ("bytes", "pixels", "phash", "dhash", "semantic")
DEFAULT_BY: Final = ("bytes", "phash", "semantic")
DEFAULT_EPS: Final = 0.1
_MEASURED_WITH: Final = "lite"  # DEFAULT_EPS: see docs/decontaminate.md
_AT_ONCE: Final = 128  # records compared at once
_ENCODED: Final = 32  # the same where a model runs on the CPU: more would wait for their pictures


@dataclass(slots=True)
class _Item:
    record: Record
    seen: Seen


class Decontaminate(Stage):
    """Drops each record that overlaps an item of a benchmark, by any of some methods. Kept ones are as they came.

    `setup` reads the benchmarks; then each record is decided alone, so that parts of the input can be done apart.

    config: by, names of METHODS, in the order in which they are told of. against: `[NAME=]EVAL` words
    (`benchmarks.parse`). hamming (6), eps (0.1, measured with lite): of those methods. With semantic as `open_embedder`
    takes it; features is a store of the records, not of the benchmarks. runtime: workers, the threads that read
    benchmarks; on_error, as the run has it: with `fail` an item that cannot be read stops the run, else it is left out
    and told of.

    found: called with each pair of a record and an item that it overlaps.
    """

    verb: ClassVar[str] = "decontaminate"
    adds: ClassVar[tuple[str, ...]] = ("drop",)
    defaults: ClassVar[dict[str, Any]] = {
        "by": list(DEFAULT_BY),
        "hamming": None,
        "eps": None,
        "model": "lite",
        "exact_decode": False,
        "features": None,
    }

    batch_size = _AT_ONCE
    embedder: Embedder | None = None
    opener: Opener | None = None
    found: Callable[[dict[str, Any]], None] | None = None

    def __init__(self, config: dict[str, Any], runtime: dict[str, Any] | None = None) -> None:
        super().__init__(config, runtime)
        by = self.config["by"]
        self._check(by)
        options = {name: self.config[name] for name in ("hamming", "eps") if self.config[name] is not None}
        self.methods: list[Deduper] = [DEDUPERS.get(name)({"eps": DEFAULT_EPS, **options}) for name in by]
        self._against = parse(self.config["against"])
        self._tally = Tally({}, {})
        self._left_out = LeftOut(strict=False)
        self._notes: list[str] = []

    def _check(self, by: list[str]) -> None:
        known = f"there are: {', '.join(METHODS)}"
        for name in by:
            if name not in METHODS:
                raise UsageError(f"--by {name}: no such method", known)
        if not by or len(set(by)) < len(by):
            raise UsageError("--by names a method twice" if by else "--by names no method", known)
        if self.config["eps"] is not None and "semantic" not in by:
            raise UsageError("--eps is about features", "add semantic to --by")
        if self.config["hamming"] is not None and not {"phash", "dhash"} & set(by):
            raise UsageError("--hamming is about phash and dhash", "add one of them to --by")
        if not self.config["against"]:
            raise UsageError("--against names no benchmark", "for example: --against test/")

    @property
    def opens_images(self) -> bool:
        """Where they may have to be; records with digests of their own, or features from a store, need none."""
        return any(m.opens or (m.encodes and not self.config["features"]) for m in self.methods)

    # Before the first record: the benchmarks are read.

    def setup(self) -> None:
        strict = policy(self, self.runtime.get("on_error")) == "fail"
        self._left_out = LeftOut(strict=strict)
        benchmarks = [open_benchmark(name, path) for name, path in self._against.items()]
        compared = self._choose(benchmarks)
        self._open()
        self.looking = Looking(self.methods, self.opener, self.embedder, stored=bool(self.config["features"]))
        identity = self.embedder.encoder.identity if self.embedder else None
        reading = Reading(
            Looking(self.methods, self.opener, self.embedder),
            identity,
            self._left_out,
            self,
            self.runtime.get("workers") or available_cores(),
            self.runtime.get("root"),
            self.runtime.get("confine", False),
            self._notes.append,
        )
        self.references = References(self.methods, identity.dim if identity else 0)
        self.references.read(benchmarks, reading)
        self._tally = Tally(compared, self.references.items)
        self._limits = {method.name: method.limit for method in self.methods}

    def _choose(self, benchmarks: list[Benchmark]) -> dict[str, list[str]]:
        """What each benchmark is compared by; methods that no benchmark can be compared by go. Raises UsageError."""
        compared = {one.name: [m.name for m in self.methods if one.usable(m)] for one in benchmarks}
        for benchmark in benchmarks:
            if not compared[benchmark.name]:
                raise benchmark.refuse(",".join(method.name for method in self.methods))
        self.methods = [method for method in self.methods if any(one.usable(method) for one in benchmarks)]
        return compared

    def _open(self) -> None:
        if any(method.encodes for method in self.methods):
            from clipkit.features.embedder import open_embedder

            self.embedder = open_embedder(self.config, self.runtime)
            self.opener = self.embedder.opener
            encoder = self.embedder.encoder
            self.lanes, self.item_bytes = encoder.lanes, self.embedder.item_bytes
            if not self.config["features"]:  # fewer at once would read all benchmarks' features too often
                self.batch_size = encoder.batch_size if encoder.lanes else max(encoder.batch_size, _ENCODED)
        else:
            from clipkit.images.opener import Opener

            names = ("root", "confine", "remote")
            self.opener = Opener(**{name: self.runtime[name] for name in names if name in self.runtime})

    def fingerprint(self) -> dict[str, Any]:
        said = {"limits": self._limits, "against": self.references.digest}
        if self.embedder:
            encoder = self.embedder.encoder
            said |= {"exact_decode": self.config["exact_decode"]}
            said |= {"encoder": str(encoder.identity), "space": encoder.space}
        return said

    # Each record.

    def stamp(self, record: Record) -> str:
        return self.looking.stamp(record)

    def prepare(self, record: Record) -> _Item:
        return _Item(record, self.looking.see(Look(record, self.opener)))

    def process(self, items: list[Any]) -> list[Outcome]:
        made = signatures(self.looking, [item.seen for item in items])
        found = iter(self.references.overlaps([one for one in made if not isinstance(one, RecordError)]))
        return [
            one if isinstance(one, RecordError) else self._outcome(item.record, next(found))
            for item, one in zip(items, made, strict=True)
        ]

    def _outcome(self, record: Record, hits: list[dict[str, Any]]) -> Outcome:
        if not hits:
            return record
        first = hits[0]
        return Drop(self.verb, f"{first['by']}:{first['set']}", hits, self._limits[first["by"]])

    # What was found.

    def on_drop(self, record: Record, drop: Drop) -> None:
        self._tally.add(drop.value)
        if self.found:
            for hit in drop.value:
                said = {name: hit[name] for name in ("by", "distance")}
                self.found({"id": record.id, "set": hit["set"], "match": hit["id"], **said})

    @property
    def notices(self) -> list[str]:
        notices = self._notes + self._left_out.notices
        if self.embedder:
            notices += self.embedder.notices
            name = self.embedder.encoder.identity.name
            if self.config["eps"] is None and name != _MEASURED_WITH:
                notices.append(f"--eps {DEFAULT_EPS:g} was measured with {_MEASURED_WITH}, not with {name}")
        return notices

    @property
    def results(self) -> list[str]:
        return self._tally.lines()

    @property
    def facts(self) -> dict[str, Any]:
        return {"benchmarks": self._tally.facts(), "left_out": self._left_out.count}

    def close(self) -> None:
        if self.embedder:
            self.embedder.close()


@contextlib.contextmanager
def overlaps_file(path: str | None) -> Iterator[Callable[[dict[str, Any]], None] | None]:
    """What writes pairs (`Decontaminate.found`) to a file of JSON lines, which is there when the run has ended well."""
    if path is None:
        yield None
        return
    sink = FileSink(path)
    try:
        yield lambda pair: sink.write(encode_json(pair), "")
        sink.commit()
    except BaseException:
        sink.abort()
        raise
