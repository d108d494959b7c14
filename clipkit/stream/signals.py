"""Signals that stop a run cleanly."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
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
