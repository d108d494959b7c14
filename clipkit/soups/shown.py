"""What a soup's verb says: while it works, and of what it made."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from clipkit.evaluation.tables import interval_of, value_of
from clipkit.stream.ending import seen
from clipkit.stream.progress import Progress, say
from clipkit.stream.record import encode_json
from clipkit.stream.table import Column
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


def _shown(said: dict[str, Any] | None, figure: str) -> str:
    """A figure with its interval, for people."""
    if not said:
        return ""
    between = interval_of(figure, said)
    return value_of(figure, said["value"]) + (f" ({between})" if between else "")


def _point(said: dict[str, Any] | None) -> str:
    return _shown(said, said["figure"]) if said else ""


GREEDY_COLUMNS: Final = (
    Column("model", 40, lambda r: r["model"], of="ingredient"),
    Column("alone", 24, lambda r: _shown(r["alone"], r["figure"]), right=True, of="ingredient"),
    Column("soup with it", 24, lambda r: _shown(r["soup"], r["figure"]), right=True, of="ingredient"),
    Column("taken", 5, lambda r: "yes" if r["taken"] else "no", of="ingredient"),
    Column("soup", 40, lambda r: " + ".join(term["model"] for term in r["terms"]), of="soup"),
    Column("figure", 8, lambda r: r["figure"], of="soup"),
    Column("n", 7, lambda r: f"{r['n']:,}", right=True, of="soup"),
    Column("value", 24, lambda r: _shown(r["soup"], r["figure"]), right=True, of="soup"),
)
WISE_COLUMNS: Final = (
    Column("alpha", 6, lambda r: f"{r['alpha']:g}", right=True),
    Column("target", 24, lambda r: _point(r.get("target")), right=True, of="point"),
    Column("others", 24, lambda r: _point(r.get("others")), right=True, of="point", optional=True),
    Column("", 10, lambda r: "suggested" if r["suggested"] else "", of="point"),
    Column("soup", 60, lambda r: " + ".join(f"{t['coefficient']:g} {t['model']}" for t in r["terms"]), of="soup"),
)
