"""The networks of an exported folder on Core ML: image.mlpackage and text.mlpackage, opened when first asked for.

They take one row at a time, as they were compiled for. macOS alone runs them.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from clipkit.errors import ClipkitError, MissingPackage, first_line
from clipkit.models.exported import towers_of
from clipkit.models.sessions import Once

INSTALL = "pip install 'clipkit[coreml]'"


class CoreMlTowers:
    """`pixels` to `joint` and perhaps `backbone`; `tokens` to `joint`; one row a call.

    Raises ClipkitError elsewhere than on macOS, and where a file is missing.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], threads: int) -> None:
        require_macos()
        if find_spec("coremltools") is None:
            raise MissingPackage("coremltools", "this model", INSTALL)
        for tower in towers_of(manifest):
            if not any(name.startswith(f"{tower}.mlpackage/") for name in manifest["files"]):
                raise ClipkitError(f"{folder} has no {tower} tower ({tower}.mlpackage)", "export the model again")
        self.space = f"coreml-{platform.mac_ver()[0]}"
        self._image = Once(lambda: _open(folder / "image.mlpackage"))
        self._text = Once(lambda: _open(folder / "text.mlpackage"))

    def image(self, pixels: np.ndarray, outputs: Sequence[str]) -> list[np.ndarray]:
        """See `clipkit.models.exported.Towers`."""
        found = self._image().predict({"pixels": pixels})
        return [np.asarray(found[name], np.float32) for name in outputs]

    def text(self, tokens: np.ndarray) -> np.ndarray:
        """See `clipkit.models.exported.Towers`."""
        return np.asarray(self._text().predict({"tokens": tokens.astype(np.int32)})["joint"], np.float32)


def require_macos() -> None:
    """Raises ClipkitError elsewhere."""
    if platform.system() != "Darwin":
        raise ClipkitError(
            f"Core ML runs on macOS alone, and this is {platform.system()}", "on a Mac, or with --to onnx anywhere"
        )


def _open(path: Path) -> Any:
    import coremltools

    try:
        return coremltools.models.MLModel(str(path), compute_units=coremltools.ComputeUnit.CPU_ONLY)
    except Exception as error:  # whatever Core ML says
        said = first_line(error)
        raise ClipkitError(f"Core ML cannot load {path}: {said}") from None
