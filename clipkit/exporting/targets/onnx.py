"""ONNX graphs for onnxruntime, in f32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from clipkit.errors import UsageError
from clipkit.exporting.base import Job, Limits, Target, Wish, Written

if TYPE_CHECKING:
    from clipkit.exporting.base import Int8, Tower

INSTALL = "pip install onnx onnxscript"
OPSETS = range(18, 26)  # that torch 2.14 writes: asked for another one, it writes 18 and says so in a log line

# On ViT-B-32 with random weights, which has no outliers, the least cosines were .9996 (weights), .9988 (dynamic) and
# .9981 (static): the limits leave room for trained models, which have some, and none for what is broken. Weights alone
# change a first answer only where two were close; rounded activations do so more often.
_LIMITS: Final[Mapping[Int8, Limits]] = {
    "weights": Limits(0.99, 0.9),
    "dynamic": Limits(0.97, 0.85),
    "static": Limits(0.97, 0.85),
}


class Onnx(Target):
    """Both towers as ONNX in f32, for onnxruntime: any batch, one file a tower. The source's very weights.

    In 8 bits (--int8) they are other weights, a quarter of the size, and run row by row.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"int8", "opset", "external_data", "embed_preprocessing"})
    packages: ClassVar[Mapping[str, str]] = {
        "onnx": INSTALL,
        "onnxscript": INSTALL,
        "onnxruntime": "pip install onnxruntime",
    }
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

    @classmethod
    def limits_of(cls, wish: Wish) -> Limits:
        return _LIMITS[wish.int8] if wish.int8 else super().limits_of(wish)

    def write(self, job: Job) -> Written:
        from clipkit.exporting import files

        opset = max(files.require_opset(job.source.graph(tower), job.wish.opset) for tower in job.wish.towers)
        graphs, written = self.networks(job)
        for tower, graph in graphs.items():
            files.ship(self._embedded(job, tower, graph), job.folder / f"{tower}.onnx", external=job.wish.external_data)
        return replace(written, facts={"opset": opset, **written.facts})

    def networks(self, job: Job) -> tuple[dict[Tower, Path], Written]:
        """The graphs that ship, not yet in the folder, and what there is to say of them."""
        from clipkit.exporting import files

        if self.wish.int8:
            from clipkit.exporting.quantising.run import quantise

            return quantise(job)
        graphs = {tower: job.source.graph(tower) for tower in job.wish.towers}
        alone = [files.rows_stand_alone(graph, job.source.noise(tower)) for tower, graph in graphs.items()]
        return graphs, Written(row_independent=all(alone))

    def _embedded(self, job: Job, tower: Tower, graph: Path) -> Path:
        """The graph, with the preprocessing in front of it where that is wished."""
        if tower == "text" or not job.wish.embed_preprocessing:
            return graph
        from clipkit.exporting.embedded import with_preprocessing

        whole = job.scratch / "embedded.onnx"
        with_preprocessing(graph, job.source.encoder.identity.preprocess, whole)
        return whole
