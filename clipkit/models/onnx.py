"""The networks of an exported folder on onnxruntime: image.onnx and text.onnx, opened when they are first asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clipkit.errors import ClipkitError
from clipkit.models.exported import towers_of
from clipkit.models.sessions import Once, kernels, open_session

IMAGE, TEXT = "image.onnx", "text.onnx"


class OnnxTowers:
    """`pixels` to `joint` and perhaps `backbone`; `tokens` to `joint`. Raises ClipkitError where a file is missing."""

    def __init__(self, folder: Path, manifest: dict[str, Any], threads: int) -> None:
        for tower in towers_of(manifest):
            if f"{tower}.onnx" not in manifest["files"]:
                raise ClipkitError(f"{folder} has no {tower} tower ({tower}.onnx)", "export the model again")
        self._image = Once(lambda: open_session(folder / IMAGE, threads))
        self._text = Once(lambda: open_session(folder / TEXT, threads))

    @property
    def space(self) -> str:
        """The library and its version."""
        return kernels()

    def image(self, pixels: np.ndarray, outputs: Sequence[str]) -> list[np.ndarray]:
        """See `clipkit.models.exported.Towers`."""
        return _run(IMAGE, self._image(), list(outputs), {"pixels": pixels})

    def text(self, tokens: np.ndarray) -> np.ndarray:
        """See `clipkit.models.exported.Towers`."""
        return _run(TEXT, self._text(), ["joint"], {"tokens": tokens})[0]


def _run(name: str, session: Any, outputs: list[str], given: dict[str, np.ndarray]) -> list[np.ndarray]:
    try:
        found: list[np.ndarray] = session.run(outputs, given)
    except Exception as error:  # a network that is not what its manifest says; the exceptions have no common base
        raise ClipkitError(f"{name} cannot be run: {str(error).splitlines()[0]}", "export the model again") from None
    return found
