"""Signals that stop a run cleanly."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from clipkit.errors import Terminated


class Signals:
    """While it is entered, SIGTERM raises Terminated as Ctrl-C raises KeyboardInterrupt, and `fired` holds which came.

    A signal in the middle of a native import surfaces as an ImportError: `fired` tells what it really was. After the
    first, Ctrl-C is Python's own again. What was ignored before, as a shell's `&` has Ctrl-C, stays so. Only the main
    thread can do this; elsewhere it does nothing.
    """

    fired: BaseException | None = None

    def __enter__(self) -> Signals:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            kinds = {signal.SIGTERM: Terminated, signal.SIGINT: KeyboardInterrupt}
            heard = [number for number in kinds if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._handler(kinds[number])) for number in heard}
        return self

    def _handler(self, kind: type[BaseException]) -> Callable[[int, FrameType | None], None]:
        def fire(number: int, frame: FrameType | None) -> None:
            if signal.SIGINT in self._before:
                signal.signal(signal.SIGINT, signal.default_int_handler)
            self.fired = self.fired or kind()
            raise self.fired

        return fire

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


@contextmanager
def stopping(tell: Callable[[str], object], out: str | None) -> Iterator[None]:
    """While it is entered, signals are as in `Signals`; where one ends it, `tell` gets a line of what became of OUT.

    out: the folder that is made within; None where there is none.
    """
    with Signals() as signals:
        try:
            yield
        except BaseException as error:
            if signals.fired or isinstance(error, KeyboardInterrupt | Terminated):
                made = out is not None and os.path.isdir(out) and os.listdir(out)
                tell(f"stopped; {f'{out} is written' if made else 'nothing was written'}")
            raise


class Patience:
    """While it is entered, the first signal that would stop the run is only noted, for `fire` to raise where that does
    no harm. A second Ctrl-C stops at once; another SIGTERM doesn't, as torchrun sends one after a terminal's Ctrl-C.

    To be entered within `Signals`, or where signals are Python's own.
    """

    noted: int | None = None

    def __init__(self, told: Callable[[], object] = lambda: None) -> None:
        """told: called when the first one comes, to say that it was heard."""
        self._told = told

    def __enter__(self) -> Patience:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            heard = [number for number in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(number))]
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.noted is None:
            self.noted = number
            self._told()
        elif number == signal.SIGINT:
            self._stop(number)

    def fire(self) -> None:
        """Raise what the noted signal stands for, if there is one."""
        if self.noted is not None:
            self._stop(self.noted)

    def _stop(self, number: int) -> None:
        before = self._before[number]
        self.__exit__()
        before(number, None)

    def __exit__(self, *exc: object) -> None:
        before, self._before = self._before, {}
        for number, handler in before.items():
            signal.signal(number, handler)
