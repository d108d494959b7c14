"""ONNX graphs for onnxruntime, in f32."""

from __future__ import annotations

import shutil
from typing import ClassVar

from clipkit.exporting.base import Job, Target, Written

INSTALL = "pip install onnx onnxscript"


class Onnx(Target):
    """Both towers as ONNX in f32, for onnxruntime: any batch, one file a tower. The source's very weights."""

    takes: ClassVar[frozenset[str]] = frozenset({"int8", "opset", "external_data", "embed_preprocessing"})
    packages = {"onnx": INSTALL, "onnxscript": INSTALL, "onnxruntime": "pip install onnxruntime"}
    needs_torch = False
    runtime = "onnx"

    def write(self, job: Job) -> Written:
        for tower in job.wish.towers:
            shutil.copyfile(job.source.graph(tower), job.folder / f"{tower}.onnx")
        return Written()
