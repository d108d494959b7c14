"""The runner of every streaming verb: Source -> Stage -> Sink, with policies, resume, accounting and exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clipkit import __version__
from clipkit.errors import ClipkitError, ExitCode, RecordError, Terminated, UsageError
from clipkit.stream import sink as sinks
from clipkit.stream.accounting import Counts
from clipkit.stream.ending import exit_code, readable, resume_command, seen
from clipkit.stream.engine import available_cores, execute
from clipkit.stream.journal import Entry, Journal, unfinished
from clipkit.stream.outcomes import PASSED, failed_record, journalled, key_of, remembered
from clipkit.stream.progress import Progress
from clipkit.stream.record import Record, encode_json
from clipkit.stream.selecting import select
from clipkit.stream.signals import Signals
from clipkit.stream.sources import BadLine
from clipkit.stream.sources.blocks import Chosen
from clipkit.stream.stage import Drop, Stage, policy
from clipkit.stream.table import Column, main_output
from clipkit.stream.whole import WholeStage, second_pass
from clipkit.terminal import printable

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
        self.stage, self.source = stage, source
        self.options = replace(options, resume=True) if options.retry_failed else options
        self.counts = Counts()
        self.reused = 0
        self.started = time.monotonic()
        self.policy = policy(stage, options.on_error)
        self.summarises = isinstance(stage, WholeStage) and stage.summarises  # nothing else is written then
        self.journal: Journal | None = None
        self.undecidable = False  # all was read, and nothing can be made of it
        self.keys: dict[int, bytes] = {}  # of items between reading and writing, by identity
        self.outputs: dict[str, sinks.Sink] = {}
        self.rejects: sinks.Sink | None = None
        self.open_output = open_output
        self.columns, self.sink = columns, sink
        self.file = sinks.regular(options.out)
        self._check()

    def _check(self) -> None:
        o = self.options
        if (o.resume or o.restart) and not self.file:
            raise UsageError("--resume needs -o FILE: the journal lies beside it", "add -o FILE")
        taken: dict[str, str] = {}
        for path, flag in ((o.out, "-o"), (o.rejects, "--rejects"), (o.report, "--report")):
            if not path or (flag == "-o" and path == "-"):
                continue
            if path == "-":
                raise UsageError(f"{flag} - : only records go to standard output", "name a file")
            if not (flag == "-o" and self.sink):
                sinks.check_writable(path, flag)
            other = taken.setdefault(os.path.realpath(path), flag)
            if other != flag and sinks.regular(path):
                raise UsageError(f"{other} and {flag} name one file: {path}", "give each its own")

    def run(self) -> ExitCode:
        with contextlib.ExitStack() as stack:
            signals = stack.enter_context(Signals())
            if self.file:
                stack.enter_context(sinks.locked(self.file))
            if rejects := sinks.regular(self.options.rejects):
                stack.enter_context(sinks.locked(rejects))
            stack.callback(self.stage.close)
            try:
                with self._progress(None).after(lambda: "getting ready"):
                    self.stage.setup()
                if self.file and not self.stage.inline:
                    self.journal = self._open_journal(self.file)
                self._open_sinks()
                with self._progress(getattr(self.source, "total", None)) as progress:
                    self._loop(progress)
                code = self._finish()
            except BaseException as error:
                failure = signals.fired or readable(error)
                self._stop(failure)
                raise failure from (None if failure is error else error)
        self._say_summary(code)
        return code

    # Opening

    def _open_journal(self, out: Path) -> Journal:
        path = out.with_name(out.name + ".journal")
        resume = self.options.resume
        if unfinished(path) and not resume and not self.options.restart:
            raise ClipkitError(
                f"an unfinished run of {out.name} lies beside it", "--resume goes on with it, --restart begins anew"
            )
        fingerprint = {"clipkit": __version__, "stage": self.stage.spec()["stage"], **self.stage.fingerprint()}
        return Journal(path, fingerprint, resume=resume and not self.options.restart)

    def _open_sinks(self) -> None:
        columns = () if self.options.json else self.columns
        self.outputs[""] = self.sink or main_output(self.options.out, columns, dropped=self.options.mark)
        if self.options.rejects:
            self.rejects = sinks.FileSink(self.options.rejects)

    def _progress(self, total: int | None) -> Progress:
        aside = self.options.out not in (None, "-") or self.sink is not None or not seen(sys.stdout)
        return Progress(self.stage.verb, total, aside and not self.options.quiet and seen(sys.stderr))

    # The loop

    def _loop(self, progress: Progress) -> None:
        workers = self.options.workers or available_cores()
        results: Any = None if self.options.mark else select(self.stage, self.source, self._decide)
        results = results or execute(self.stage, self.source, workers=workers, decide=self._decide, late=self._late)
        if isinstance(self.stage, WholeStage):  # progress is shown as it reads
            results = second_pass(self.stage, self._first_pass(results, progress), lambda: self._learning(progress))
        last_flush = time.monotonic()
        with contextlib.closing(results):
            for item, outcome in results:
                count = item.read if isinstance(item, Chosen) else 1
                self.counts.read += count
                if isinstance(item, Chosen):
                    self.counts.choose(len(item.kept), item.drops)
                    sinks.write_lines(self.outputs[""], item.kept, item.origin)
                else:
                    self._settle(item, outcome)
                if not isinstance(self.stage, WholeStage):
                    progress.step(self.counts.failed, count)
                now = time.monotonic()
                if now - last_flush > 0.1:
                    self.outputs[""].flush()
                    last_flush = now
        if isinstance(self.stage, WholeStage) and self.summarises:
            for record in self.stage.summary():
                self.outputs[""].write(record.encode(), "")

    def _first_pass(self, results: Any, progress: Progress) -> Iterator[tuple[Any, Any]]:
        """The rows of a stage that reads everything first, journalled, each with its record."""
        with contextlib.closing(results):
            for item, outcome in results:
                key = self.keys.pop(id(item), None) if self.keys else None
                if isinstance(outcome, Entry):
                    self.reused += 1
                    outcome = remembered(outcome)
                elif key and self.journal is not None:
                    self.journal.append(key, journalled(outcome))
                if isinstance(outcome, RecordError) and self.policy == "fail":  # not only after all is read
                    self._failed(item, outcome, item.origin)
                yield item, outcome
                progress.step(self.counts.failed)

    def _decide(self, item: Record | BadLine) -> Any:
        """The outcome of an item that the stage need not see; runs where records are read."""
        if isinstance(item, BadLine):
            return item.error
        if "error" in item and item["error"] is not None:
            return PASSED
        if self.journal is None:
            return None
        try:
            key = self.keys[id(item)] = key_of(self.stage, item)
        except RecordError as error:
            return error
        entry = self.journal.find(key)
        if entry and entry.kind == "f" and self.options.retry_failed:
            return None
        if entry and entry.kind == "k" and not self.stage.stands([line for _, line in entry.lines]):
            return None
        return entry

    def _settle(self, item: Record | BadLine, outcome: Any) -> None:
        """Write one outcome and journal it if it is new."""
        key = self.keys.pop(id(item), None) if self.keys else None
        if outcome is PASSED:
            assert isinstance(item, Record)
            self.counts.passed += 1
            if self.sink and self.rejects:  # a store or a pack, which leave it out
                self.rejects.write(item.encode(), item.origin)
            if not self.summarises:
                self._write("", item.encode(), item.origin)
            return
        if key is None and isinstance(outcome, Record) and outcome.line is not None:  # chosen as it came
            self.counts.kept += 1
            self._write("", outcome.line, item.origin)
            return
        if isinstance(outcome, Entry):
            entry = outcome
            self.reused += 1
        else:
            entry = journalled(outcome)
            if self.journal is not None and key:
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

    def _late(self, item: Record | BadLine, outcome: Any) -> None:
        """Journal what a run that ends does not come to write."""
        key = self.keys.pop(id(item), None)
        if key is not None and self.journal is not None:
            with contextlib.suppress(OSError):  # a full disk, which may be why it ends
                self.journal.append(key, journalled(outcome))

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
        self.stage.on_drop(record, drop)
        if self.options.mark:
            record["drop"] = {"by": drop.by, "reason": drop.reason, "value": drop.value, "limit": drop.limit}
            record.null_unwritable()
            self._write("", record.encode(), record.origin)

    def _failed(self, item: Record | BadLine, error: RecordError, origin: str) -> None:
        self.counts.fail(error)
        if self.policy == "fail":
            error.where = error.where or item.where
            error.hint = error.hint or "--on-error skip or keep goes on without it"
            raise error
        if self.rejects or self.policy == "keep":
            line = failed_record(item, error, self.stage.verb).encode()
            if self.rejects:
                self.rejects.write(line, origin)
            if self.policy == "keep" and not self.summarises:
                self._write("", line, origin)
        if self.policy == "skip" and self.counts.failed <= _SAID_FAILURES:
            self._say(f"clipkit {self.stage.verb}: {error.where or item.where}: {error.message} (skipped)")

    # Ending

    def _finish(self) -> ExitCode:
        if not self.counts.add_up:
            raise ClipkitError(f"the counts don't add up: {self.counts}", "this is a fault of clipkit: report it")
        code = self._code()
        if self.rejects:
            self.rejects.commit()
        for output in self.outputs.values():
            output.commit()
        self._report(code)
        self._close_journal(over=True)
        return code

    def _close_journal(self, *, over: bool) -> None:
        """over: nobody need go on with this run."""
        if self.journal is not None:
            if over and self.options.resume:
                self.journal.finish()
            self.journal.close(keep=self.options.resume or not over)

    def _code(self) -> ExitCode:
        if (self.counts.failed or self.stage.shortfall) and not self.options.lenient:
            return ExitCode.SOME_FAILED
        if self.options.exit_status and not self.counts.kept:
            return ExitCode.NOTHING_LEFT
        return ExitCode.OK

    def _report(self, code: ExitCode, error: str | None = None) -> None:
        """Write --report, also for a run that failed: an older one must not pass for it."""
        if not self.options.report:
            return
        report = self.counts.report(self.stage.verb, code) | {
            "run": {
                "clipkit": __version__,
                "stage": self.stage.spec()["stage"],
                "config": self.stage.config,
                "reused": self.reused,
                "seconds": round(time.monotonic() - self.started, 3),
            },
        }
        report |= {name: value for name, value in (("facts", self.stage.facts), ("error", error)) if value}
        target = sinks.FileSink(str(self.options.report))
        target.write(encode_json(report), "")
        target.commit()

    def _stop(self, error: BaseException) -> None:
        """Leave nothing half-written under a final name; say how to go on."""
        for output in (*self.outputs.values(), self.rejects):
            if output:
                with contextlib.suppress(OSError):
                    output.abort()
        with contextlib.suppress(OSError):
            self._report(exit_code(error), str(error) or "stopped")
        over = isinstance(error, ClipkitError) and (self.undecidable or not (self.journal and self.journal.useful))
        journalled = len(self.journal) if self.journal is not None and not over else 0
        kept = journalled or self.stage.kept
        with contextlib.suppress(OSError):
            self._close_journal(over=over)
        if kept and isinstance(error, KeyboardInterrupt | Terminated):
            only = "only what it has read is kept; " if journalled and isinstance(self.stage, WholeStage) else ""
            self._say(f"clipkit {self.stage.verb}: stopped; {only}go on with: {resume_command(sys.argv)}")
        elif kept and isinstance(error, ClipkitError) and not isinstance(error, UsageError) and not error.hint:
            error.hint = f"go on with: {resume_command(sys.argv)}"  # a hint of its own says what must change first

    @contextlib.contextmanager
    def _learning(self, progress: Progress) -> Iterator[None]:
        """While a stage looks at all it has read; what it has learned is said before any record is decided."""
        stage: Any = self.stage
        with progress.after(lambda: f"all is read; {stage.doing}"):
            try:
                yield
            except ClipkitError:
                self.undecidable = True
                raise
        if seen(sys.stderr) and not self.options.quiet and not self.summarises:
            for line in stage.announcement:
                self._say(line)

    def _say(self, text: str) -> None:
        if not self.options.quiet:
            print(printable(text), file=sys.stderr)

    def _say_summary(self, code: ExitCode) -> None:
        """One line where someone looks, and wherever records failed."""
        for notice in self.stage.notices:
            self._say(f"clipkit {self.stage.verb}: {notice}")
        troubled = code is ExitCode.SOME_FAILED
        looked_at = seen(sys.stderr) and not self.options.quiet
        if troubled or looked_at:
            kept = "counted" if self.summarises else "kept"
            print(self.counts.summary(self.stage.verb, time.monotonic() - self.started, kept), file=sys.stderr)
        if looked_at:
            made = getattr(self.sink, "results", ())
            for line in (*self.counts.funnel(self.stage.steps), *self.stage.results, *made):
                self._say(line)
        if troubled and self.counts.advice:
            self._say(self.counts.advice)
