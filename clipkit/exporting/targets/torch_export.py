"""torch.export's programs, for torch without the model's code."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from clipkit.errors import ClipkitError, first_line
from clipkit.exporting.base import Job, Target, Written

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from clipkit.exporting.base import Tower
    from clipkit.exporting.source import Source


_TOLERANCE = 1e-4


class TorchExport(Target):
    """Both towers as programs of torch.export in f32, image.pt2 and text.pt2: torch runs them without open_clip; any
    batch. The source's very weights, each tower its own alone.

    Neither stack traces, which name folders of the machine, nor example inputs are in them, and nothing is pickled.
    Rows run one by one: torch's results depend on the shape of a batch.
    """

    packages: ClassVar[Mapping[str, str]] = {"torch": "pip install clipkit"}
    runtime = "torch.export"

    def write(self, job: Job) -> Written:
        for tower in job.wish.towers:
            save(job.source, tower, job.folder / f"{tower}.pt2")
        return Written(row_independent=False)


class _Written(io.FileIO):
    """A file for torch's writer, which ends the whole process where a write fails: what failed is kept instead."""

    failed: OSError | None = None

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        while left and not self.failed:
            try:
                left = left[super().write(left) :]
            except OSError as error:
                self.failed = error
        return memoryview(data).nbytes


def save(source: Source, tower: Tower, path: Path) -> None:
    """Write a tower, and hold what is read back to the module at batches of 1, 2 and 5.

    Raises ClipkitError where torch cannot export it, or it comes out wrong.
    """
    import torch

    from clipkit.exporting.graphs import BATCHES
    from clipkit.models.torch_program import load

    module, example = source.module(tower), source.example(tower)
    made = program(module, tower, example, free=True)
    with _Written(path, "wb") as file:
        torch.export.save(made, file)
    if file.failed:
        raise file.failed
    again = load(path).module()
    for rows in BATCHES:
        batch = source.example(tower, rows)
        with torch.inference_mode():
            pairs = zip(module(batch), again(batch), strict=True)
        off = max(float((right - found).abs().max() / max(1.0, float(right.abs().max()))) for right, found in pairs)
        if not off <= _TOLERANCE:
            raise ClipkitError(
                f"torch's program of the {tower} tower is off by {off:.2g} at {rows} rows", "update torch"
            )


def program(module: Any, tower: str, example: Any, *, free: bool) -> ExportedProgram:
    """A tower as a program, holding only what it needs. Raises ClipkitError where torch cannot.

    free: any batch, where the example has two rows or more; else that of the example.
    """
    import torch

    from clipkit.exporting.quiet import hushed

    try:
        with hushed(), torch.no_grad():
            shapes = ({0: torch.export.Dim("batch", min=1)},) if free else None
            made = torch.export.export(module, (example,), dynamic_shapes=shapes)
    except Exception as error:  # whatever torch's exporter runs into
        said = first_line(error)
        raise ClipkitError(f"torch cannot export the {tower} tower: {said}") from error
    _strip(made)
    return made


def _strip(made: ExportedProgram) -> None:
    """Take out weights of the other tower, the traces to the code that it was made of, and the example."""
    unused = {node.name: node for node in made.graph.nodes if node.op == "placeholder" and not node.users}
    kept = []
    for spec in made.graph_signature.input_specs:
        if spec.target is None or spec.arg.name not in unused:
            kept.append(spec)
            continue
        made.graph.erase_node(unused[spec.arg.name])
        made.state_dict.pop(spec.target, None)
        made.constants.pop(spec.target, None)
    made.graph_signature.input_specs = kept
    for node in made.graph.nodes:
        for key in node.meta.keys() - {"val", "unbacked_bindings"}:
            del node.meta[key]
    made.graph_module.recompile()
    made.example_inputs = None
