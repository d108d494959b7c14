"""ExecuTorch's programs, for phones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from clipkit.errors import ClipkitError, first_line
from clipkit.exporting.base import Job, Target, Written
from clipkit.exporting.quiet import hushed
from clipkit.models.executorch import INSTALL

if TYPE_CHECKING:
    from torch.export import ExportedProgram


class ExecuTorch(Target):
    """Both towers as ExecuTorch programs in f32, image.pte and text.pte, on XNNPACK (ARM and x86); one row a call.

    What XNNPACK has no kernel for runs on ExecuTorch's portable ones. Norms are decomposed. The source's very weights.
    """

    packages: ClassVar[Mapping[str, str]] = {"executorch": INSTALL, "torch": "pip install clipkit"}
    runtime = "executorch"

    def write(self, job: Job) -> Written:
        from clipkit.exporting.targets.torch_export import program

        for tower in job.wish.towers:
            made = program(job.source.module(tower), tower, job.source.example(tower, 1), free=False)
            try:
                compile_program(made, job.folder / f"{tower}.pte")
            except Exception as error:  # whatever its passes run into; its runtime's library may be missing too
                said = first_line(error)
                raise ClipkitError(f"ExecuTorch cannot compile the {tower} tower: {said}") from error
        return Written(row_independent=False)


def compile_program(made: ExportedProgram, path: Path) -> None:
    """Write a program of one row for XNNPACK."""
    with hushed():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        path.write_bytes(to_edge_transform_and_lower(made, partitioner=[XnnpackPartitioner()]).to_executorch().buffer)
