"""The runner of every streaming verb: Source -> Stage -> Sink, with policies, resume, accounting and exit codes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from clipkit import __version__
from clipkit.errors import ClipkitError, ExitCode, RecordError, Terminated, UsageError
from clipkit.stream import sink as sinks
from clipkit.stream.engine import available_cores, execute
from clipkit.stream.journal import Entry, Journal, unfinished
from clipkit.stream.progress import Progress
from clipkit.stream.record import Record, encode_json
from clipkit.stream.sources import BadLine
from clipkit.stream.stage import Drop, Emit, Stage
from clipkit.stream.table import Column, TableSink

_SAID_FAILURES = 5  # failures told one by one; the rest are in the count


@dataclass
class RunOptions:
    """What a run does besides its stage. The command line's `StreamOptions` makes one; Python code may too.

    on_error: `fail`, `skip`, `keep`, or None for the stage's own (keep where it reads images, else fail).
    workers: threads; 0 = the cores this process may use. mark: keep dropped records, with the field `drop`.
    """

    out: str | None = None
    on_error: str | None = None
    rejects: str | None = None
    resume: bool = False
    restart: bool = False
    retry_failed: bool = False
    lenient: bool = False
    exit_status: bool = False
    report: str | None = None
    workers: int = 0
    mark: bool = False
    quiet: bool = False
    json: bool = False


@dataclass
class Counts:
    """read = kept + dropped + failed + passed; `passed` arrived with an error and went through untouched."""

    read: int = 0
    kept: int = 0
    dropped: int = 0
    failed: int = 0
    passed: int = 0
    failures: Counter[str] = field(default_factory=Counter)  # by RecordError.kind
    drops: Counter[str] = field(default_factory=Counter)  # by Drop.reason

    @property
    def add_up(self) -> bool:
        return self.read == self.kept + self.dropped + self.failed + self.passed

    def summary(self, verb: str, seconds: float) -> str:
        """One line for people."""
        parts = [
            f"{getattr(self, n):,} {n}"
            for n in ("kept", "dropped", "failed", "passed")
            if n == "kept" or getattr(self, n)
        ]
        reasons = ", ".join(f"{kind} {n:,}" for kind, n in self.failures.most_common(3))
        told = f" ({reasons})" if reasons else ""
        return f"clipkit {verb}: {self.read:,} read, {', '.join(parts)}{told} in {seconds:.1f} s"


def run(
    stage: Stage,
    source: Iterable[Record | BadLine],
    options: RunOptions | None = None,
    *,
    columns: Sequence[Column] = (),
    sink: sinks.Sink | None = None,
    open_output: Callable[[str], sinks.Sink] | None = None,
) -> ExitCode:
    """Run a stage over a source and write what it keeps; the exit code says how it went.

    columns: the table shown when stdout is a terminal and records were not asked for.
    sink: where records go instead of `options.out` (a feature store); its files are made by the caller.
    open_output: makes the sink of a named output the first time a stage emits to it.
    Raises ClipkitError when the run cannot go on; what was decided until then is in the journal.
    """
    return _Run(stage, source, options or RunOptions(), columns, sink, open_output).run()


class _Run:
    def __init__(
        self,
        stage: Stage,
        source: Iterable[Record | BadLine],
        options: RunOptions,
        columns: Sequence[Column],
        sink: sinks.Sink | None,
        open_output: Callable[[str], sinks.Sink] | None,
    ) -> None:
        self.stage, self.source, self.options = stage, source, options
        self.counts = Counts()
        self.started = time.monotonic()
        self.policy = options.on_error or ("keep" if "image" in stage.reads else "fail")
        self.journal: Journal | None = None
        self.keys: dict[int, bytes] = {}  # of items between reading and writing, by identity
        self.outputs: dict[str, sinks.Sink] = {}
        self.rejects: sinks.Sink | None = None
        self.open_output = open_output
        self.columns, self.sink = columns, sink
        self.file = _regular(options.out)
        self._check()

    def _check(self) -> None:
        o = self.options
        if (o.resume or o.restart or o.retry_failed) and not self.file:
            raise UsageError("--resume needs -o FILE: the journal lies beside it", "add -o FILE")
        for path, flag in ((o.out, "-o"), (o.rejects, "--rejects"), (o.report, "--report")):
            if path and not (flag == "-o" and self.sink):
                sinks.check_writable(path, flag)

    def run(self) -> ExitCode:
        with contextlib.ExitStack() as stack:
            if self.file:
                stack.enter_context(sinks.locked(self.file))
            stack.enter_context(_sigterm())
            stack.callback(self.stage.close)
            self.stage.setup()
            if self.file and not self.stage.inline:
                self.journal = self._open_journal(self.file)
            progress = stack.enter_context(self._progress())
            try:
                self._open_sinks()
                self._loop(progress)
                code = self._finish()
            except BaseException as error:
                failure = _readable(error)
                self._stop(failure)
                raise failure from (None if failure is error else error)
        self._say_summary(code)
        return code

    # Opening

    def _open_journal(self, out: Path) -> Journal:
        path = out.with_name(out.name + ".journal")
        resume = self.options.resume or self.options.retry_failed
        if unfinished(path) and not resume and not self.options.restart:
            raise ClipkitError(
                f"an unfinished run of {out.name} lies beside it", "--resume goes on with it, --restart begins anew"
            )
        fingerprint = {"clipkit": __version__, "stage": self.stage.spec()["stage"], **self.stage.fingerprint()}
        return Journal(path, fingerprint, resume=resume and not self.options.restart)

    def _open_sinks(self) -> None:
        self.outputs[""] = self.sink or self._main_sink()
        if self.options.rejects:
            self.rejects = sinks.FileSink(self.options.rejects)

    def _main_sink(self) -> sinks.Sink:
        if self.options.out and self.options.out != "-":
            return sinks.FileSink(self.options.out)
        if self.columns and sys.stdout.isatty() and not self.options.json:
            return TableSink(self.columns)
        return sinks.StdoutSink()

    def _progress(self) -> Progress:
        aside = self.options.out not in (None, "-") or self.sink is not None or not sys.stdout.isatty()
        shown = aside and not self.options.quiet and sys.stderr.isatty()
        return Progress(self.stage.verb, getattr(self.source, "total", None), shown)

    # The loop

    def _loop(self, progress: Progress) -> None:
        workers = self.options.workers or available_cores()
        results: Any = execute(self.stage, self.source, workers=workers, decide=self._decide)
        last_flush = time.monotonic()
        with contextlib.closing(results):
            for item, outcome in results:
                self.counts.read += 1
                self._settle(item, outcome)
                progress.step(self.counts.failed)
                now = time.monotonic()
                if now - last_flush > 0.1:
                    self.outputs[""].flush()
                    last_flush = now

    def _decide(self, item: Record | BadLine) -> Any:
        """The outcome of an item that the stage need not see; runs where records are read."""
        if isinstance(item, BadLine):
            return item.error
        if "error" in item and item["error"] is not None:
            return _PASSED
        if self.journal is None:
            return None
        key = self.keys[id(item)] = _key(self.stage, item)
        entry = self.journal.find(key)
        return None if entry and entry.kind == "f" and self.options.retry_failed else entry

    def _settle(self, item: Record | BadLine, outcome: Any) -> None:
        """Write one outcome and journal it if it is new."""
        key = self.keys.pop(id(item), None)
        if outcome is _PASSED:
            assert isinstance(item, Record)
            self.counts.passed += 1
            self._write("", item.encode(), item.origin)
            return
        if key is None and isinstance(outcome, Record) and outcome.line is not None:  # chosen as it came
            self.counts.kept += 1
            self._write("", outcome.line, item.origin)
            return
        entry = outcome if isinstance(outcome, Entry) else _entry(outcome)
        if self.journal is not None and key and entry is not outcome:
            self.journal.append(key, entry)
        if entry.kind == "f":
            left = Record.parse(entry.lines[0][1], item.where) if entry.lines else item
            self._failed(left, RecordError(*entry.detail), item.origin)
            return
        assert isinstance(item, Record)
        if entry.kind == "d":
            self._dropped(item, Drop(*entry.detail))
            return
        self.counts.kept += 1
        for name, line in entry.lines:
            self._write(name, line, item.origin)

    def _write(self, name: str, line: bytes, origin: str) -> None:
        output = self.outputs.get(name)
        if output is None:
            if self.open_output is None:
                raise RuntimeError(f"stage {self.stage.verb} emits to {name!r}, which nobody opens")
            output = self.outputs[name] = self.open_output(name)
        output.write(line, origin)

    def _dropped(self, record: Record, drop: Drop) -> None:
        self.counts.dropped += 1
        self.counts.drops[drop.reason] += 1
        if self.options.mark:
            record["drop"] = {"by": drop.by, "reason": drop.reason, "value": drop.value, "limit": drop.limit}
            self._write("", record.encode(), record.origin)

    def _failed(self, item: Record | BadLine, error: RecordError, origin: str) -> None:
        self.counts.failed += 1
        self.counts.failures[error.kind] += 1
        if self.policy == "fail":
            error.where = error.where or item.where
            error.hint = error.hint or "--on-error skip or keep goes on without it"
            raise error
        if self.rejects or self.policy == "keep":
            line = failed_record(item, error, self.stage.verb).encode()
            if self.rejects:
                self.rejects.write(line, origin)
            if self.policy == "keep":
                self._write("", line, origin)
        if self.policy == "skip" and self.counts.failed <= _SAID_FAILURES:
            self._say(f"clipkit {self.stage.verb}: {error.where or item.where}: {error.message} (skipped)")

    # Ending

    def _finish(self) -> ExitCode:
        code = self._code()
        if code is not ExitCode.FAILED:
            if self.rejects:
                self.rejects.commit()
            for output in self.outputs.values():
                output.commit()
        if self.options.report:
            self._report(code)
        if self.journal is not None:
            if self.options.resume:
                self.journal.finish()
            self.journal.close(keep=self.options.resume or code is ExitCode.FAILED)
        return code

    def _code(self) -> ExitCode:
        if not self.counts.add_up:
            self._say(f"clipkit {self.stage.verb}: the counts don't add up: {self.counts}")
            return ExitCode.FAILED
        if self.counts.failed and not self.options.lenient:
            return ExitCode.SOME_FAILED
        if self.options.exit_status and not self.counts.kept:
            return ExitCode.NOTHING_LEFT
        return ExitCode.OK

    def _report(self, code: ExitCode) -> None:
        c = self.counts
        report = {
            "verb": self.stage.verb,
            "exit": int(code),
            "counts": {"read": c.read, "kept": c.kept, "dropped": c.dropped, "failed": c.failed, "passed": c.passed},
            "failures": dict(sorted(c.failures.items())),
            "drops": dict(sorted(c.drops.items())),
            "run": {
                "clipkit": __version__,
                "stage": self.stage.fingerprint(),
                "reused": self.journal.reused if self.journal is not None else 0,
                "seconds": round(time.monotonic() - self.started, 3),
            },
        }
        target = sinks.FileSink(str(self.options.report))
        target.write(encode_json(report), "")
        target.commit()

    def _stop(self, error: BaseException) -> None:
        """Leave nothing half-written under a final name; say how to go on."""
        for output in (*self.outputs.values(), self.rejects):
            if output:
                with contextlib.suppress(OSError):
                    output.abort()
        kept = 0
        if self.journal is not None:
            kept = len(self.journal)
            with contextlib.suppress(OSError):
                self.journal.close(keep=True)
        if kept and isinstance(error, KeyboardInterrupt | Terminated):
            self._say(f"clipkit {self.stage.verb}: stopped; go on with: {resume_command(sys.argv)}")
        elif kept and isinstance(error, ClipkitError):
            error.hint = f"{error.hint + '; ' if error.hint else ''}go on with: {resume_command(sys.argv)}"

    def _say(self, text: str) -> None:
        if not self.options.quiet:
            print(text, file=sys.stderr)

    def _say_summary(self, code: ExitCode) -> None:
        """One line where someone looks, and wherever records failed."""
        for notice in getattr(self.stage, "notices", ()):
            self._say(f"clipkit {self.stage.verb}: {notice}")
        troubled = code is ExitCode.SOME_FAILED
        if troubled or (sys.stderr.isatty() and not self.options.quiet):
            print(self.counts.summary(self.stage.verb, time.monotonic() - self.started), file=sys.stderr)


def _readable(error: BaseException) -> BaseException:
    """A disk that is full, a file that cannot be written: said as such."""
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        place = f"{error.filename}: " if error.filename else ""
        return ClipkitError(f"{place}{error.strerror or error}".lower() if not place else f"{place}{error.strerror}")
    return error


class _Passed:
    """The outcome of a record that arrived with an error."""


_PASSED = _Passed()


def _entry(outcome: Any) -> Entry:
    """An outcome as the journal keeps it. A value that JSON cannot hold is the record's failure."""
    if isinstance(outcome, RecordError):
        return Entry("f", [], [outcome.kind, outcome.message, outcome.hint])
    if isinstance(outcome, Drop):
        return Entry("d", [], [outcome.by, outcome.reason, outcome.value, outcome.limit])
    records = outcome.records if isinstance(outcome, Emit) else [("", outcome)]
    try:
        return Entry("k", [(name, record.encode()) for name, record in records])
    except ValueError:
        fields, bad = next((fields, record) for _, record in records if (fields := record.null_nonfinite()))
        message = f"{', '.join(fields)}: not a finite number"
        return Entry("f", [("", bad.encode())], ["not-finite", message, None])


def _key(stage: Stage, record: Record) -> bytes:
    """What must be equal for an outcome to be reused: the id, the record's bytes, the stamp of its image."""
    digest = hashlib.blake2b(record.encode(), digest_size=16)
    digest.update(b"\0" + (record.id or "").encode() + b"\0" + stage.stamp(record).encode())
    return digest.digest()


def failed_record(item: Record | BadLine, error: RecordError, verb: str) -> Record:
    """The record that carries an error on; a line that is no record goes into its field `line`."""
    message = error.message
    if isinstance(item, Record):
        marked = item.copy()
    elif item.record is not None:
        marked = item.record.copy()
    else:
        marked = Record({"line": item.text.decode("utf-8", "backslashreplace")})
        message = f"{item.where}: {message}"
    marked["error"] = {"verb": verb, "type": error.kind, "message": message}
    return marked


def _regular(out: str | None) -> Path | None:
    """The file that -o makes, or None for stdout, a pipe or a device."""
    if out in (None, "-"):
        return None
    path = Path(os.path.realpath(str(out)))
    return None if path.exists() and not (path.is_file() or path.is_dir()) else path


def resume_command(argv: Sequence[str]) -> str:
    """The command line that goes on with an interrupted run."""
    rest = [word for word in argv[1:] if word != "--restart"]
    return shlex.join(["clipkit", *rest, *([] if "--resume" in rest else ["--resume"])])


@contextlib.contextmanager
def _sigterm() -> Iterator[None]:
    """Turn SIGTERM into Terminated while a run is on (only the main thread may)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
