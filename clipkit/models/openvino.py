"""The networks of an exported folder on OpenVINO: image.xml and text.xml, their weights beside, opened when needed."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import local
from typing import Any

import numpy as np

from clipkit.errors import ClipkitError, MissingPackage
from clipkit.models.exported import towers_of
from clipkit.models.sessions import Once

INSTALL = "pip install 'clipkit[openvino]'"


class OpenVinoTowers:
    """`pixels` to `joint` and perhaps `backbone`; `tokens` to `joint`. Raises ClipkitError where a file is missing."""

    def __init__(self, folder: Path, manifest: dict[str, Any], threads: int) -> None:
        for tower in towers_of(manifest):
            if missing := sorted({f"{tower}.xml", f"{tower}.bin"} - manifest["files"].keys()):
                raise ClipkitError(f"{folder} has no {tower} tower ({missing[0]})", "export the model again")
        self._image = Once(lambda: _Network(folder / "image.xml", threads))
        self._text = Once(lambda: _Network(folder / "text.xml", threads))

    @property
    def space(self) -> str:
        """The library and its version."""
        return kernels()

    def image(self, pixels: np.ndarray, outputs: Sequence[str]) -> list[np.ndarray]:
        """See `clipkit.models.exported.Towers`."""
        found = self._image()(pixels)
        return [found[name] for name in outputs]

    def text(self, tokens: np.ndarray) -> np.ndarray:
        """See `clipkit.models.exported.Towers`."""
        joint: np.ndarray = self._text()(tokens)["joint"]
        return joint


class _Network:
    """A compiled network; each thread that calls has an infer request of its own."""

    def __init__(self, path: Path, threads: int) -> None:
        openvino = library()
        # A stream is a place where one call runs: with fewer than callers they would wait for each other.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        streams = max(1, cores // threads)
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",  # the default is bf16 where the processor has it
            "EXECUTION_MODE_HINT": "ACCURACY",
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams * threads,
            "ENABLE_CPU_PINNING": False,  # several processes would be pinned to the same cores
        }
        try:
            self._compiled = openvino.Core().compile_model(str(path), "CPU", settings)
        except Exception as error:  # whatever OpenVINO runs into; it has no class of its own for it
            raise ClipkitError(f"OpenVINO cannot load {path}: {last_line(error)}") from None
        self._mine = local()

    def __call__(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs by name, copied: the request's own memory is written by the next call."""
        if not hasattr(self._mine, "request"):
            self._mine.request = self._compiled.create_infer_request()
        found = self._mine.request.infer([batch])
        return {output.any_name: np.array(value) for output, value in found.items()}


def library() -> Any:
    """The openvino module, kept from telling its makers that it is used.

    It brings openvino-telemetry, which from the import on sends events to Google Analytics, unless the user has opted
    out before (as of openvino 2026.4). Where that package cannot be imported OpenVINO has a stand-in for it.
    """
    if importlib.util.find_spec("openvino") is None:
        raise MissingPackage("openvino", "this model", INSTALL)
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@cache
def kernels() -> str:
    """Which kernels compute, without the 0.3 s that importing the library takes."""
    spec = importlib.util.find_spec("openvino")
    if spec is None or spec.origin is None:
        raise MissingPackage("openvino", "this model", INSTALL)
    from importlib.metadata import version

    return f"openvino-{version('openvino')}"


def last_line(error: Exception) -> str:
    """What an error of OpenVINO's says in the end, behind the places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return re.sub(r"\s+", " ", lines[-1]) if lines else type(error).__name__
