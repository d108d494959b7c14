"""A progress bar on stderr, drawn only when someone looks and the work takes a while."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

_PATIENCE = 0.7  # seconds before a bar is worth drawing (and tqdm worth importing)


def say(line: str) -> None:
    """A line on stderr, above the bar where one is drawn."""
    if "tqdm" not in sys.modules:
        print(line, file=sys.stderr)
        return
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)


class Progress:
    """`step` once a record. Nothing is imported or drawn for short work."""

    def __init__(self, verb: str, total: int | None, shown: bool) -> None:
        self._verb, self._total, self._shown = verb, total, shown
        self._due = time.monotonic() + _PATIENCE if shown else float("inf")
        self._bar: Any = None
        self._steps = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def step(self, failed: int, count: int = 1) -> None:
        """So many more records are done; `failed` of all so far."""
        self._steps += count
        if self._bar is not None:
            if failed:
                self._bar.set_postfix_str(f"{failed} failed", refresh=False)
            self._bar.update(count)
        elif time.monotonic() >= self._due:
            from tqdm import tqdm

            self._bar = tqdm(
                desc=self._verb,
                total=self._total,
                initial=self._steps,
                unit=" records",
                leave=False,
                dynamic_ncols=True,
            )

    @contextlib.contextmanager
    def after(self, what: Callable[[], str]) -> Iterator[None]:
        """While something is done after the last step: what it is at, and for how long, once it takes a while."""
        if not self._shown:
            yield
            return
        if self._bar is not None:
            self._bar.close()
        done = threading.Event()
        teller = threading.Thread(target=self._tell, args=(what, done), name="teller", daemon=True)
        teller.start()
        try:
            yield
        finally:
            done.set()
            teller.join()

    def _tell(self, what: Callable[[], str], done: threading.Event) -> None:
        if done.wait(_PATIENCE):
            return
        from tqdm import tqdm

        with tqdm(desc=f"{self._verb}: {what()}", bar_format="{desc} [{elapsed}]", leave=False) as bar:
            while not done.wait(1):
                bar.set_description_str(f"{self._verb}: {what()}")
