"""What is left of a run for people: run.json, and a picture of its losses."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from clipkit import __version__
from clipkit.evaluation import plots
from clipkit.training.checkpoints import Origin, Reached
from clipkit.training.evaluating import FIGURES
from clipkit.training.watch import read

_LISTED: Final = 100  # ids of pictures that could not be read
_POINTS: Final = 100  # of a curve


def begun(model: str, origin: Origin, pairs: int) -> dict[str, Any]:
    """run.json of a run that begins. model: as it was asked for. pairs: examples of an epoch."""
    return {
        "verb": "train",
        "format": 1,
        "finished": False,
        "model": {"name": model, "digest": origin.model},
        "data": {"pairs": pairs, "digest": origin.data},
        "settings": origin.settings,
        "processes": origin.processes,
        "versions": {
            "clipkit": __version__,
            "torch": version("torch"),
            "open_clip": version("open_clip_torch"),
            "python": platform.python_version(),
        },
    }


def reached(reached: Reached, settings: Mapping[str, Any], metrics: Path) -> dict[str, Any]:
    """What run.json says of how far it came: steps, samples, the first and the last loss, evaluations, failures."""
    first = last = measured = None
    for said in read(metrics):
        if said["step"] <= reached.step:
            if "eval" in said:
                measured = said["eval"]
            elif "loss" in said:
                first, last = said["loss"] if first is None else first, said["loss"]
    return {
        "steps": reached.step,
        "samples": reached.step * settings["batch_size"],
        "loss": {"first": first, "last": last},
        "eval": measured,
        "best": best(reached),
        "failed": {"kinds": dict(sorted(Counter(reached.failed.values()).items())), "ids": _first(reached.failed)},
        "seconds": round(reached.seconds, 1),
    }


def best(reached: Reached) -> dict[str, Any] | None:
    """The best evaluation, as run.json and the record of a run have it."""
    found = reached.best
    return {"step": found.step, "figure": found.figure, "value": found.value, **found.figures} if found else None


def _first(ids: Iterable[str]) -> list[str]:
    return sorted(ids)[:_LISTED]


def draw(card: Mapping[str, Any], metrics: Path, path: Path) -> bool:
    """Draw the loss, and the evaluations if there are some; False without matplotlib."""
    if find_spec("matplotlib") is None:
        return False
    steps, losses, figures = [], [], {name: [] for name in FIGURES}  # type: ignore[var-annotated]
    for said in read(metrics):
        if "eval" in said:
            for name in figures.keys() & said["eval"].keys():
                figures[name].append({"x": said["step"], "value": said["eval"][name]})
        elif said.get("loss") is not None:
            steps.append(said["step"])
            losses.append(said["loss"])
    curves = {"loss": thinned(steps, losses)} | {name: points for name, points in figures.items() if points}
    axes = {name: {"x": "step", "y": "loss" if name == "loss" else "evaluation"} for name in curves}
    data = {"n": card["data"]["pairs"]}
    said = {"task": "train", "model": card["model"]["name"], "data": data, "tables": {"curves": curves, "axes": axes}}
    plots.draw(said, str(path))
    return True


def thinned(steps: list[int], losses: list[float]) -> list[dict[str, float]]:
    """A curve of at most so many points: means over equal runs of steps, with the least and the greatest of each."""
    size = -(-len(losses) // _POINTS) or 1
    points = []
    for start in range(0, len(losses), size):
        some = losses[start : start + size]
        last = steps[min(start + size, len(steps)) - 1]
        points.append({"x": last, "value": sum(some) / len(some), "low": min(some), "high": max(some)})
    return points
