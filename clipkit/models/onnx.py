"""The ONNX backend: a folder that `clipkit export` wrote, run without torch. docs/models.md has the format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from clipkit.errors import ClipkitError
from clipkit.models.base import Encoder, Identity, Preprocess
from clipkit.models.clip_tokenizer import TextTokenizer
from clipkit.models.names import MANIFEST
from clipkit.models.sessions import kernels, open_session

if TYPE_CHECKING:
    from PIL import Image

FORMAT = 1
TOWERS = {"image.onnx": "image", "text.onnx": "text"}


def load(folder: Path, *, threads: int = 1) -> OnnxEncoder:
    """An encoder from an exported folder. threads: that one call may use.

    Raises ClipkitError for a newer format, a missing tower, a file that is not the one that was exported.
    """
    manifest = read_manifest(folder)
    _check_files(folder, manifest["files"])
    return OnnxEncoder(folder, manifest, threads)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The clipkit.json of an exported model, checked as far as it can be without the other files."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ClipkitError(f"cannot read {path}: {error}") from None
    if not isinstance(manifest, dict) or manifest.get("kind") != "model":
        raise ClipkitError(f"{path} does not describe a model", "expected what `clipkit export` writes")
    if manifest.get("format") != FORMAT:
        raise ClipkitError(
            f"{folder} has format {manifest.get('format')}; this clipkit reads {FORMAT}", "update clipkit"
        )
    if missing := sorted(_NEEDED - manifest.keys()):
        raise ClipkitError(f"{path} lacks {', '.join(missing)}", "export the model again")
    return manifest


_NEEDED = frozenset(
    [
        "name",
        "identity",
        "preprocess",
        "logit_scale",
        "logit_bias",
        "context_length",
        "tokenizer",
        "precision",
        "row_independent",
        "files",
    ]
)


def identity_of(manifest: dict[str, Any]) -> Identity:
    """The identity that an exported model carries: its source's, or its own if quantising changed the weights."""
    described = manifest["preprocess"]
    preprocess = Preprocess(**{**described, **{key: tuple(described[key]) for key in ("size", "mean", "std")}})
    about = manifest["identity"]
    return Identity(
        manifest["name"], about["weights"], preprocess, about["activation"], about["dim"], about.get("extra", {})
    )


class OnnxEncoder(Encoder):
    """Two networks: image.onnx takes `pixels` to `joint` and perhaps `backbone`, text.onnx takes `tokens` to `joint`.

    Where the manifest says that rows are independent, batches run as they come; else (activations quantised by the
    range of a batch) row by row.
    """

    backend: ClassVar[str] = "onnx"

    def __init__(self, folder: Path, manifest: dict[str, Any], threads: int) -> None:
        self.identity = identity_of(manifest)
        self.logit_scale, self.logit_bias = manifest["logit_scale"], manifest["logit_bias"]
        self.context_length = manifest["context_length"]
        self.precision = manifest["precision"]
        self.backbone_dim = manifest.get("backbone_dim")
        self._at_once = self.batch_size if manifest["row_independent"] else 1
        about = manifest["tokenizer"]
        self._tokenizer = TextTokenizer.open(
            folder / about["file"], self.context_length, pad=about["pad"], clean=about["clean"]
        )
        self._image, self._text = (open_session(folder / name, threads) for name in TOWERS)

    @property
    def space(self) -> str:
        return f"{super().space}/{kernels()}"

    def preprocess(self, image: Image.Image) -> np.ndarray:
        from clipkit.images.transform import apply

        return apply(self.identity.preprocess, image)

    def encode_images(
        self, batch: np.ndarray | Sequence[np.ndarray], *, backbone: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        names = ["joint", "backbone"] if backbone and self.backbone_dim else ["joint"]
        outputs = self._rows(batch, len(names), lambda part: self._image.run(names, {"pixels": part}))
        return _unit(outputs[0]), outputs[1].astype(np.float32) if len(names) > 1 else None

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        tokens = self._tokenizer(texts)
        return _unit(self._rows(tokens, 1, lambda part: self._text.run(["joint"], {"tokens": part}))[0])

    def count_tokens(self, texts: list[str]) -> list[int]:
        return [self._tokenizer.count(text) for text in texts]

    def close(self) -> None:
        del self._image, self._text

    def _rows(
        self, rows: np.ndarray | Sequence[np.ndarray], outputs: int, run: Callable[[np.ndarray], list[np.ndarray]]
    ) -> list[np.ndarray]:
        """Outputs [n, ...] of rows, as many at once as may be."""
        starts = range(0, len(rows), self._at_once)
        parts = [run(np.ascontiguousarray(rows[start : start + self._at_once])) for start in starts]
        if not parts:
            widths = (self.identity.dim, self.backbone_dim or 0)
            return [np.zeros((0, width), np.float32) for width in widths[:outputs]]
        return [np.concatenate(output) for output in zip(*parts, strict=True)]


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows [n, d] scaled to length 1, each on its own, f32."""
    rows = rows.astype(np.float64)
    unit: np.ndarray = (rows / np.sqrt((rows * rows).sum(axis=1, keepdims=True))).astype(np.float32)
    return unit


def _check_files(folder: Path, files: dict[str, str]) -> None:
    for name, tower in TOWERS.items():
        if name not in files or not (folder / name).is_file():
            raise ClipkitError(f"{folder} has no {tower} tower ({name})", "export the model again")
    for name, expected in files.items():
        path = folder / name
        if path.parent != folder or not path.is_file():
            raise ClipkitError(f"{folder} lacks the file {name}", "export the model again, or copy it whole")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                raise ClipkitError(f"{path} is not the file that was exported (its sha256 differs)", "copy it again")
