"""OpenVINO's own format, for Intel's processors and others with their instructions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from clipkit.errors import ClipkitError
from clipkit.exporting.base import Job, Target, Written
from clipkit.exporting.quiet import hushed
from clipkit.exporting.targets.onnx import INSTALL as INSTALL_ONNX
from clipkit.models.openvino import INSTALL, last_line, library


class OpenVino(Target):
    """Both towers in OpenVINO's format, in f32: image.xml and text.xml, the weights in the .bin beside each; any batch.

    The source's very weights, computed in f32 where the processor would take bf16 by itself too. Rows run one by one:
    OpenVINO chooses its kernels by batch and processor, and with AVX2 a row alone differs in its last bits from the
    same row among others (2026.4; with AVX-512 it does not). That costs a sixth of the speed of large batches.
    """

    packages: ClassVar[Mapping[str, str]] = {
        "openvino": INSTALL,
        "onnx": INSTALL_ONNX,
        "onnxscript": INSTALL_ONNX,
        "onnxruntime": "pip install onnxruntime",
    }
    runtime = "openvino"

    def write(self, job: Job) -> Written:
        for tower in job.wish.towers:
            convert(job.source.graph(tower), job.folder / f"{tower}.xml")
        return Written(row_independent=False)


def convert(graph: Path, path: Path) -> None:
    """An ONNX graph as PATH (.xml) and the .bin beside it, every weight as it is.

    Raises ClipkitError where OpenVINO cannot read the graph.
    """
    openvino = library()
    try:
        with hushed():
            model = openvino.convert_model(graph)
            openvino.save_model(model, path, compress_to_fp16=False)  # True by default, without a word
    except Exception as error:  # whatever OpenVINO runs into
        raise ClipkitError(f"OpenVINO cannot convert {graph.name}: {last_line(error)}") from error
