"""A progress bar on stderr, drawn only when someone looks and the work takes a while."""

from __future__ import annotations

import time
from typing import Any

_PATIENCE = 0.7  # seconds before a bar is worth drawing (and tqdm worth importing)


class Progress:
    """`step` once a record. Nothing is imported or drawn for short work."""

    def __init__(self, verb: str, total: int | None, shown: bool) -> None:
        self._verb, self._total = verb, total
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
