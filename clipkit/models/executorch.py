"""The networks of an exported folder on ExecuTorch: image.pte and text.pte, opened when first asked for.

They take one row at a time, as they were compiled for.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from clipkit.errors import ClipkitError, MissingPackage
from clipkit.models.exported import towers_of
from clipkit.models.sessions import Once

INSTALL = "pip install 'clipkit[executorch]'"


class ExecuTorchTowers:
    """`pixels` to `joint` and perhaps `backbone`; `tokens` to `joint`; one row a call.

    Raises ClipkitError where a file is missing, MissingPackage.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], threads: int) -> None:
        for tower in towers_of(manifest):
            if f"{tower}.pte" not in manifest["files"]:
                raise ClipkitError(f"{folder} has no {tower} tower ({tower}.pte)", "export the model again")
        if find_spec("executorch") is None:
            raise MissingPackage("executorch", "this model", INSTALL)
        from importlib.metadata import version

        self.space = f"executorch-{version('executorch')}"
        self._outputs = ["joint", "backbone"] if manifest.get("backbone_dim") else ["joint"]
        self._image = Once(lambda: _Program(folder / "image.pte"))
        self._text = Once(lambda: _Program(folder / "text.pte"))

    def image(self, pixels: np.ndarray, outputs: Sequence[str]) -> list[np.ndarray]:
        """See `clipkit.models.exported.Towers`."""
        found = dict(zip(self._outputs, self._image()(pixels), strict=True))
        return [found[name] for name in outputs]

    def text(self, tokens: np.ndarray) -> np.ndarray:
        """See `clipkit.models.exported.Towers`."""
        joint: np.ndarray = self._text()(tokens)[0]
        return joint


class _Program:
    """A loaded program. Its memory is planned ahead for one call, so calls wait for each other."""

    def __init__(self, path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is experimental: docs/export.md says so
            from executorch.runtime import Runtime

        try:
            self._program = Runtime.get().load_program(path)
            self._forward = self._program.load_method("forward")
        except Exception as error:  # ExecuTorch's are RuntimeErrors of many kinds
            raise ClipkitError(f"ExecuTorch cannot load {path}: {error}") from None
        self._lock = Lock()

    def __call__(self, row: np.ndarray) -> list[np.ndarray]:
        import torch

        with self._lock:
            return [output.numpy().copy() for output in self._forward.execute([torch.from_numpy(row)])]
