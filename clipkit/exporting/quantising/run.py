"""A model's towers in 8 bits: what stands in the way is looked at first, and what came out is run once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx

from clipkit.exporting.base import Job, Written
from clipkit.exporting.files import save
from clipkit.exporting.quantising import activations, layers, outliers, weights
from clipkit.models.sessions import open_session

if TYPE_CHECKING:
    from clipkit.exporting.base import Int8, Tower

REPORT: Final = "outliers.json"
_LOOKED_AT: Final = 16  # samples of a tower: outliers sit in the same few channels for all inputs
_WORST: Final = 5  # layers in the report; all are in outliers.json
_BATCH: Final = 8
_NAMES: Final[dict[Int8, str]] = {"weights": "int8", "dynamic": "int8-dynamic", "static": "int8-static"}


def quantise(job: Job) -> tuple[dict[Tower, Path], Written]:
    """The towers that are wished, as graphs of 8 bits in the job's scratch, and outliers.json in its folder.

    Their rows are not promised to be independent of a batch, whatever they are on this machine: which kernels run, and
    over which ranges they round, is another on the next processor.
    """
    assert job.wish.int8 is not None
    rows = [row for tower in job.wish.towers for row in _outliers(job, tower)]
    rows.sort(key=outliers.worst_first)
    (job.folder / REPORT).write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if job.wish.int8 != "weights":  # else nothing is rounded by such a range
        _say(job, rows[0])
    made = {tower: _quantised(job, tower) for tower in job.wish.towers}
    facts = {
        "int8": job.wish.int8,
        "outliers": {"layers": len(rows), "worst": rows[:_WORST]},
        "neighbours": {tower: _neighbours(job, tower, path) for tower, path in made.items()},
    }
    precision = _NAMES[job.wish.int8]
    return made, Written(precision, same_weights=False, row_independent=False, facts=facts)


def inputs(job: Job, tower: Tower) -> Iterator[np.ndarray]:
    """The job's samples as a tower takes them, in batches [n, ...]."""
    encoder: Any = job.source.encoder
    samples = job.samples()
    given = samples.pictures if tower == "image" else samples.texts
    for start in range(0, len(given), _BATCH):
        part: Any = given[start : start + _BATCH]
        if tower == "image":
            yield np.stack([encoder.preprocess(picture) for picture in part])
        else:
            yield encoder._tokenizer(list(part))


def _outliers(job: Job, tower: Tower) -> list[dict[str, Any]]:
    few = list(islice(inputs(job, tower), _LOOKED_AT // _BATCH))
    return outliers.report(job.source.graph(tower), tower, lambda: few, job.scratch)


def _quantised(job: Job, tower: Tower) -> Path:
    graph, target = job.source.graph(tower), job.scratch / f"{tower}.int8.onnx"
    save(_model(job, tower, graph), target)
    return target


def _model(job: Job, tower: Tower, graph: Path) -> onnx.ModelProto:
    if job.wish.int8 == "dynamic":
        return activations.dynamic(graph, job.scratch)
    if job.wish.int8 == "static":
        return activations.static(graph, job.scratch, inputs(job, tower))
    model = layers.load(graph)
    weights.quantise(model)
    return model


def _neighbours(job: Job, tower: Tower, path: Path) -> float:
    """By how much a sample's features change when others are in its batch: the largest difference."""
    batch = next(inputs(job, tower))
    session = open_session(path, 1)
    name = session.get_inputs()[0].name
    together = session.run(["joint"], {name: batch})[0]
    alone = np.concatenate([session.run(["joint"], {name: batch[i : i + 1]})[0] for i in range(len(batch))])
    return float(np.abs(together - alone).max())


def _say(job: Job, worst: dict[str, Any]) -> None:
    """The worst layer, in a line, and what to do where activations will be rounded by it."""
    steps = worst.get("steps")
    if steps is None:
        return
    line = (
        f"{worst['tower']}: {worst['layer']} is what 8-bit activations hurt most: its values reach {worst['max']:.3g} "
        f"at a standard deviation of {worst['std']:.3g}, which gets {steps:.3g} of 255 steps "
        f"(kurtosis {worst['kurtosis']:.3g}; {worst['outliers']:,} values in {worst['channels']:,} channels "
        f"beyond {outliers.SIGMAS:g} deviations)"
    )
    if steps < outliers.FEW_STEPS:
        line += "; --int8 alone rounds no activations by such a range"
    job.tell(line)
