"""What a soup's verb says: while it works, and of what it made."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from clipkit.stream.ending import seen
from clipkit.stream.progress import Progress, say
from clipkit.stream.record import encode_json
from clipkit.terminal import printable


class Voice:
    """What a verb says while it works, on standard error. doing: what it is at, which is shown where someone looks."""

    def __init__(self, verb: str, *, quiet: bool = False) -> None:
        self.doing = "looking at the models"
        self._verb, self._quiet = verb, quiet

    def tell(self, notice: str) -> None:
        """Say what a person should hear, unless quiet."""
        if not self._quiet:
            say(printable(f"clipkit {self._verb}: {notice}"))

    @contextmanager
    def working(self) -> Iterator[None]:
        """While this is entered, `doing` is shown, once it takes a while."""
        shown = seen(sys.stderr) and not self._quiet
        with Progress(self._verb, None, shown).after(lambda: printable(self.doing)):
            yield


def show(made: Mapping[str, Any], *, as_json: bool) -> None:
    """What `card.save` gave: a record on standard output, on a terminal lines."""
    if as_json or not sys.stdout.isatty():
        print(encode_json(made).decode())
        return
    print(printable(f"{made['out']}: the model {made['model']}"))
    for term in made["terms"]:
        print(printable(f"{term['coefficient']:+10.4f}  {term['model']}"))
