"""The engine: a stage over records on this machine's cores, outcomes in input order, read-ahead bounded."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from clipkit.errors import ClipkitError, RecordError
from clipkit.stream.fieldnames import mapping_hint
from clipkit.stream.record import Record
from clipkit.stream.stage import Drop, Emit, Outcome, Row, Stage

_READ_AHEAD = 256 << 20  # bytes of prepared items, at most
_KEPT_BLOCK = 8 << 20  # bytes; a decoded picture, or a batch of a model's inputs, is smaller
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_PAUSE = 0.05  # seconds without a new record after which a batch goes as it is


def available_cores() -> int:
    """Cores this process may use (affinity and, on Linux, the cgroup's quota)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError), open("/sys/fs/cgroup/cpu.max") as file:
        quota, period = file.read().split()
        if quota != "max":
            cores = min(cores, max(1, round(int(quota) / int(period))))
    return cores


class _Slot:
    """One input item on its way through, in order. before: its bytes as read, should the stage change and fail it."""

    __slots__ = ("before", "future", "item", "outcome", "ready")

    def __init__(self, item: Any, outcome: Any = None) -> None:
        self.item = item
        self.outcome = outcome
        self.before = item.encode() if outcome is None else b""
        self.future: Future[Any] | None = None
        self.ready: Any = None


def execute(
    stage: Stage,
    items: Iterable[Any],
    *,
    workers: int,
    decide: Callable[[Any], Any] = lambda item: None,
    late: Callable[[Any, Outcome], None] = lambda item, outcome: None,
) -> Generator[tuple[Any, Any], None, None]:
    """Yield `(item, outcome)` for each item, in input order. The stage must be set up.

    decide: gives the outcome of an item that the stage need not see (a bad line, one from the journal), else None.
    late: where a run ends early, is given what a stage that `waits` has of items whose turn does not come any more.
    An inline stage runs record by record in this thread. Others run batches in threads: where a model is on
    the CPU (`stage.lanes` 0) each of `workers` threads prepares and processes whole batches, one core each; where it is
    not, `workers` threads prepare and `stage.lanes` threads process.
    """
    if stage.inline:
        for item in items:
            outcome = decide(item)
            if outcome is None:
                before = item.encode()
                try:
                    outcome = stage.process([prepare(stage, item)])[0]
                except RecordError as error:
                    outcome = error
                _restore(item, before, outcome)
            yield item, outcome
    else:
        _keep_freed_memory()
        yield from _Threaded(stage, items, workers, decide, late).run()


def _restore(record: Record, before: bytes, outcome: Any) -> None:
    """A record that failed or was dropped is as it came: nothing of the attempt shows, now or after a resume."""
    if before and isinstance(outcome, RecordError | Drop) and record.line is not before:
        record.restore(before)


def _keep_freed_memory() -> None:
    """Have glibc keep a little freed memory for the next picture. Elsewhere nothing is done.

    Left to itself it hands blocks of this size back to the system and asks for them anew, which stops the other
    threads each time: more or less often by chance, up to a tenth of the CPU time of `embed` with the carried model.
    """
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(AttributeError):  # another C library
            libc = ctypes.CDLL(None)
            libc.mallopt(_M_MMAP_THRESHOLD, _KEPT_BLOCK)
            libc.mallopt(_M_TRIM_THRESHOLD, 4 * _KEPT_BLOCK)


def prepare(stage: Stage, record: Record) -> Any:
    """`stage.prepare`, after the check that the fields it reads are there. Raises RecordError."""
    for name in stage.reads:
        if record.get(name) is None:
            raise RecordError("missing-field", f"no field {name!r}", mapping_hint([name], record))
    return stage.prepare(record)


class _Threaded:
    def __init__(
        self,
        stage: Stage,
        items: Iterable[Any],
        workers: int,
        decide: Callable[[Any], Any],
        late: Callable[[Any, Outcome], None],
    ) -> None:
        self.stage, self.items, self.decide, self.late = stage, items, decide, late
        self.together = stage.lanes == 0  # one thread prepares a batch and processes it
        self.lanes = workers if self.together else stage.lanes
        held = max(1, _READ_AHEAD // max(1, stage.item_bytes))  # prepared items that fit
        self.batch = min(stage.batch_size, max(1, held // self.lanes))
        if self.together:  # one batch being written, one waiting: no thread waits for either
            self.window = max(self.batch * (self.lanes + 2), 16)
        else:  # prepared items wait for a lane, within the bytes allowed
            self.window = min(max(self.batch * (self.lanes + 2), 2 * workers), max(held, self.batch * self.lanes))
            self.window = max(self.window, min(stage.read_ahead, held))
        self.budget = threading.Semaphore(self.window)
        self.events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self.stopping = False
        self.running = 0
        self.lane_pool = ThreadPoolExecutor(self.lanes, thread_name_prefix="process")
        self.prepare_pool = None if self.together else ThreadPoolExecutor(workers, thread_name_prefix="prepare")

    def run(self) -> Generator[tuple[Any, Any], None, None]:
        threading.Thread(target=self._read, name="read", daemon=True).start()
        window: deque[_Slot] = deque()
        forming: list[_Slot] = []
        reading = True
        unreadable: BaseException | None = None
        try:
            while reading or window:
                try:
                    kind, value = self.events.get(timeout=_PAUSE if forming and self.running < self.lanes else None)
                except queue.Empty:
                    kind, value = "pause", None
                if kind == "item":
                    window.append(value)
                    if value.outcome is None:
                        if self.prepare_pool:
                            value.future = self.prepare_pool.submit(prepare, self.stage, value.item)
                        forming.append(value)
                elif kind == "done":
                    self.running -= 1
                elif kind == "crash":
                    raise value
                elif kind == "end":
                    reading, unreadable = False, value
                # A batch goes when it is full, when no record follows, and when none can: all slots are taken.
                if forming and (len(forming) >= self.batch or kind in ("pause", "end") or len(window) >= self.window):
                    self._submit(forming)
                    forming = []
                while window and window[0].outcome is not None:
                    slot = window.popleft()
                    self.budget.release()
                    _restore(slot.item, slot.before, slot.outcome)
                    yield slot.item, slot.outcome
            if unreadable is not None:  # what could be read before is done
                raise unreadable
        finally:
            self.stopping = True
            self.budget.release()  # the reader wakes, sees that, and ends
            self.stage.stop()
            for pool in (self.prepare_pool, self.lane_pool):
                if pool:
                    pool.shutdown(wait=True, cancel_futures=True)
            self._hand_over(window)

    def _read(self) -> None:
        try:
            for item in self.items:
                self.budget.acquire()
                if self.stopping:
                    return
                self.events.put(("item", _Slot(item, self.decide(item))))
            self.events.put(("end", None))
        except BaseException as error:  # the main thread raises it, after what was read
            self.events.put(("end", error))

    def _submit(self, slots: list[_Slot]) -> None:
        self.running += 1
        self.lane_pool.submit(self._work, slots)

    def _work(self, slots: list[_Slot]) -> None:
        try:
            good = [slot for slot in slots if not self.stopping and self._prepared(slot)]
            if good and not self.stopping:
                for slot, outcome in zip(good, self._processed([slot.ready for slot in good]), strict=True):
                    slot.outcome, slot.ready = outcome, None
            self.events.put(("done", None))
        except BaseException as error:  # a bug or out of memory: not a record's fault
            self.events.put(("crash", error))

    def _hand_over(self, window: Iterable[_Slot]) -> None:
        """Give away what came of records behind the one that ended the run; errors aside, which may be of that end."""
        for slot in window if self.stage.waits else ():
            outcome, ready, future = slot.outcome, slot.ready, slot.future
            if future and not future.cancelled() and future.exception() is None:
                ready = future.result()
            if outcome is None and ready is not None:
                with contextlib.suppress(ClipkitError):
                    outcome = self._processed([ready])[0]
            if isinstance(outcome, Record | Drop | Emit | Row):
                self.late(slot.item, outcome)

    def _processed(self, ready: list[Any]) -> list[Outcome]:
        """The outcomes of a batch; one record's error is found by giving each its own call."""
        try:
            outcomes = self.stage.process(ready)
        except RecordError as error:
            return [error] if len(ready) == 1 else [outcome for one in ready for outcome in self._processed([one])]
        if any(outcome is None for outcome in outcomes):
            raise TypeError(f"{type(self.stage).__name__}.process gave None for a record")
        return outcomes

    def _prepared(self, slot: _Slot) -> bool:
        try:
            slot.ready = slot.future.result() if slot.future else prepare(self.stage, slot.item)
            slot.future = None
        except RecordError as error:
            slot.outcome = error
            return False
        return True
