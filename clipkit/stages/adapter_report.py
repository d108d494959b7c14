"""What a person sees of a few-shot experiment: a small table, and a few lines."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from typing import Any

from clipkit.errors import ClipkitError
from clipkit.stream.record import Record
from clipkit.stream.sink import Sink, StdoutSink
from clipkit.stream.table import Column, TableSink

OTHERS = "others"  # the column about classes that the adapter doesn't know


class AdapterSink:
    """Writes the adapter when all went well, and then says what came of it.

    save: writes it. table: for people: where standard output is a terminal.
    """

    def __init__(self, save: Callable[[], None], *, table: bool) -> None:
        self._save, self._table = save, table
        self._line = b""
        self._unheard: OSError | None = None

    def write(self, line: bytes, origin: str) -> None:
        """Take the summary."""
        self._line = line

    def flush(self) -> None:
        """Nothing is said before the adapter is written."""

    def require_done(self) -> None:
        """Once the run is over, and has told how records failed: raise ClipkitError where none had anything to learn
        from, OSError where nobody took what was said of the adapter."""
        if self._unheard:
            raise self._unheard
        if not self._line:
            hint = (
                "each needs a field label; --label-from folder takes it from the path, --rejects FILE has what failed"
            )
            raise ClipkitError("there was no labelled image to learn from: nothing is written", hint)

    def commit(self) -> None:
        if not self._line:
            return
        self._save()
        try:
            self._say()
        except OSError as error:  # the run is done all the same: there is nothing to go on with
            self._unheard = error

    def _say(self) -> None:
        if sys.stdout is None:
            return
        if self._table and sys.stdout.isatty():
            write_table(Record.parse(self._line).to_dict())
            return
        shown = StdoutSink()
        shown.write(self._line, "")
        shown.commit()

    def abort(self) -> None:
        """The run stopped: what was there stays."""


def write_table(said: dict[str, Any]) -> None:
    """Accuracies before and after, on each set of images, to standard output."""
    made = list(updated(said) if "updated" in said else rows(said))
    heads = dict.fromkeys(name for row in made for name in row if name != "model")
    columns = [Column("", 24, lambda row: str(row["model"]))]
    columns += [Column(name, max(15, len(name)), _cell(name), right=True) for name in heads]
    sink: Sink = TableSink(columns)
    for row in made:
        sink.write(Record(row).encode(), "")
    sink.commit()


def _cell(name: str) -> Callable[[Record], str]:
    return lambda row: str(row.get(name) or "")


def rows(said: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of that table: the model alone, the adapter, and the mean over seeds where there are several."""
    measured = {f"{on} ({found['images']:,})": found for on, found in said["accuracy"].items()}
    other = said["forgetting"].get("together")
    for name, key in (("zero-shot", "zero_shot"), (said["method"], "adapted")):
        row = {"model": name} | {on: f"{found[key]:.3f}" for on, found in measured.items()}
        yield row | ({OTHERS: f"{other[key]:.3f}"} if other else {})
    if len(said["seeds"]) > 1:
        spread = {on: f"{found['mean']:.3f} ± {found['std']:.3f}" for on, found in measured.items()}
        yield {"model": f"{len(said['seeds'])} draws, mean"} | spread


def updated(said: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows about an adapter that was updated."""
    for on, found in said.get("accuracy", {}).items():
        for name, key in (("zero-shot", "zero_shot"), ("as it was", "before"), ("updated", "after")):
            yield {"model": name, f"{on} ({found['images']:,})": f"{found[key]:.3f}"}


def lines(said: dict[str, Any], model: str = "") -> list[str]:
    """What was chosen on what, what was gained and lost, and what to do next.

    model: how the user named it, where the adapter doesn't remember that name: it lies in a folder.
    """
    return [line for line in (_tried(said), _chosen(said), _gained(said), _lost(said), _next(said, model)) if line]


def _tried(said: dict[str, Any]) -> str:
    """Of several methods how each did, best first; of equal accuracies the surer one was kept."""
    able = [each for each in said.get("tried", ()) if "accuracy" in each]
    if not able:
        return ""
    able.sort(key=lambda each: (-each["accuracy"], each["method"] != said["method"]))
    on = next(iter(said["accuracy"]))
    return f"tried, {on} accuracy: " + ", ".join(f"{each['method']} {each['accuracy']:.3f}" for each in able)


def _chosen(said: dict[str, Any]) -> str:
    samples, first = said["samples"], said["selection"][0]
    few, many = samples["min"], samples["max"]
    each = f"{many:,}" if few == many else f"{few:,} to {many:,}"
    learned = f"{said['method']}: {samples['all']:,} images of {said['classes']:,} classes, {each} of each"
    if first["on"] == "untuned":
        return f"{learned}; untuned: its parameters are defaults"
    if first["on"] == "fixed":
        return f"{learned}; nothing to choose"
    values = ", ".join(f"{name} {_number(value)}" for name, value in said["chosen"].items())
    what = "validation images" if first["on"] == "validation" else "held-out ones"
    return f"{learned}; {values or 'nothing to choose'}, on {first['samples']:,} {what}"


def _gained(said: dict[str, Any]) -> str:
    on = "test" if "test" in said["accuracy"] else next(iter(said["accuracy"]), None)
    if on is None:
        return "what it gains was not measured: name images with --test"
    found = said["accuracy"][on]
    return f"{on}: {found['zero_shot']:.3f} before, {found['adapted']:.3f} with it ({_points(found['gain'])})"


def _lost(said: dict[str, Any]) -> str:
    forgotten, suggested = said["forgetting"], said["blend"].get("suggested")
    if "together" not in forgotten:
        return f"what it costs elsewhere was not measured: {forgotten['reason']}"
    change = forgotten["together"]
    told = f"{forgotten['on']}: {change['zero_shot']:.3f} before, {change['adapted']:.3f} with it"
    advice = f"; --blend {suggested:g} serves both best" if suggested else ""
    if suggested == 0:
        advice = "; it is for its own classes alone"
    return f"{told} ({_points(change['gain'])}){advice}"


def _next(said: dict[str, Any], model: str) -> str:
    if not said["adapter"]:
        return ""
    return (
        f"use it: clipkit apply {shlex.quote(said['adapter'])} SOURCE{f' --model {shlex.quote(model)}' * bool(model)}"
    )


def _points(gain: float) -> str:
    return f"{100 * gain:+.1f} points"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
