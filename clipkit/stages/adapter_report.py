"""What a person sees of a few-shot experiment: a small table, and a few lines."""

from __future__ import annotations

import shlex
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any, Final

from clipkit.errors import ClipkitError
from clipkit.methods.adapters.forgetting import HALF
from clipkit.stream.record import Record
from clipkit.stream.sink import Sink, StdoutSink
from clipkit.stream.table import Column, TableSink

_WIDE: Final = 80  # of a line for people


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
    forgotten = said["forgetting"]
    other = forgotten.get("together")
    for name, key in (("zero-shot", "zero_shot"), (said["method"], "adapted")):
        row = {"model": name} | {on: f"{found[key]:.3f}" for on, found in measured.items()}
        yield row | ({f"others ({forgotten['images']:,})": f"{other[key]:.3f}"} if other else {})
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
    told = [*_tried(said), *_chosen(said), _gained(said), *_lost(said)]
    wrapped = [line for text in told for line in textwrap.wrap(text, _WIDE, subsequent_indent="  ")]
    return [*wrapped, _next(said, model)] if said["adapter"] else wrapped


def _tried(said: dict[str, Any]) -> list[str]:
    """Of several methods what decided between them, the one that was kept first."""
    able = [each for each in said.get("tried", ()) if each.get("cross_entropy") is not None]
    if not able:
        return []
    able.sort(key=lambda each: (each["cross_entropy"], each["method"] != said["method"]))
    found = ", ".join(f"{each['method']} {each['cross_entropy']:.3f}" for each in able)
    return [f"tried, the least {next(iter(said['accuracy']))} cross-entropy is kept: {found}"]


def _chosen(said: dict[str, Any]) -> list[str]:
    samples, first = said["samples"], said["selection"][0]
    few, many = samples["min"], samples["max"]
    each = f"{many:,}" if few == many else f"{few:,} to {many:,}"
    learned = f"{said['method']}: {samples['all']:,} images of {said['classes']:,} classes, {each} of each"
    if first["on"] == "untuned":
        return [learned, "untuned: its parameters are defaults"]
    if first["on"] == "fixed" or not said["chosen"]:
        return [learned]
    values = ", ".join(f"{name} {_number(value)}" for name, value in said["chosen"].items())
    what = "validation" if first["on"] == "validation" else "held-out"
    return [learned, f"chosen on {first['samples']:,} {what} images: {values}"]


def _gained(said: dict[str, Any]) -> str:
    on = "test" if "test" in said["accuracy"] else next(iter(said["accuracy"]), None)
    if on is None:
        return "what it gains was not measured: name images with --test"
    found = said["accuracy"][on]
    return f"{on}: {found['zero_shot']:.3f} before, {found['adapted']:.3f} with it ({_points(found['gain'])})"


def _lost(said: dict[str, Any]) -> list[str]:
    forgotten, blend = said["forgetting"], said["blend"]
    if "together" not in forgotten:
        return ["what it costs on other classes was not measured:", f"  {forgotten['reason']}"]
    change = forgotten["together"]
    where = "estimated on half of the classes" if forgotten["on"] == HALF else f"on {forgotten['images']:,} images"
    told = [f"other classes: {change['zero_shot']:.3f} before, {change['adapted']:.3f} with it ({where})"]
    for point in blend["curve"]:
        if point["alpha"] == blend["suggested"]:
            both = f"{point['target']:.3f} on its own classes, {point['other']:.3f} on others"
            told.append(f"best for both: --blend {point['alpha']:g} ({both})")
    return told


def _next(said: dict[str, Any], model: str) -> str:
    named = f" --model {shlex.quote(model)}" * bool(model)
    return f"use it: clipkit apply {shlex.quote(said['adapter'])} SOURCE{named}"


def _points(gain: float) -> str:
    return f"{100 * gain:+.1f} points"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
