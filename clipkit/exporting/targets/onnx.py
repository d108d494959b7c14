"""ONNX graphs for onnxruntime, in f32."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from clipkit.errors import UsageError
from clipkit.exporting.base import Job, Target, Written

if TYPE_CHECKING:
    from clipkit.exporting.base import Tower

INSTALL = "pip install onnx onnxscript"
OPSETS = range(18, 26)  # that torch 2.14 writes: asked for another one, it writes 18 and says so in a log line


class Onnx(Target):
    """Both towers as ONNX in f32, for onnxruntime: any batch, one file a tower. The source's very weights."""

    takes: ClassVar[frozenset[str]] = frozenset({"int8", "opset", "external_data", "embed_preprocessing"})
    packages: ClassVar[Mapping[str, str]] = {
        "onnx": INSTALL,
        "onnxscript": INSTALL,
        "onnxruntime": "pip install onnxruntime",
    }
    needs_torch = False
    runtime = "onnx"

    def check(self) -> None:
        super().check()
        if self.wish.opset is not None and self.wish.opset not in OPSETS:
            raise UsageError(
                f"--opset {self.wish.opset} cannot be had: torch writes {OPSETS[0]} to {OPSETS[-1]}",
                "leave it out: 20 is read everywhere",
            )
        if self.wish.embed_preprocessing and "image" not in self.wish.towers:
            raise UsageError("--embed-preprocessing is about pictures, and --tower text ships none", "leave it out")

    def write(self, job: Job) -> Written:
        from clipkit.exporting import files

        opsets, alone = [], True
        for tower in job.wish.towers:
            graph = job.source.graph(tower)
            opsets.append(files.require_opset(graph, job.wish.opset))
            alone &= files.rows_stand_alone(graph, job.source.noise(tower))
            files.ship(self._embedded(job, tower, graph), job.folder / f"{tower}.onnx", external=job.wish.external_data)
        return Written(row_independent=alone, facts={"opset": max(opsets)})

    def _embedded(self, job: Job, tower: Tower, graph: Path) -> Path:
        """The graph, with the preprocessing in front of it where that is wished."""
        if tower == "text" or not job.wish.embed_preprocessing:
            return graph
        from clipkit.exporting.embedded import with_preprocessing

        whole = job.scratch / "embedded.onnx"
        with_preprocessing(graph, job.source.encoder.identity.preprocess, whole)
        return whole
