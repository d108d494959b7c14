"""A folder that `clipkit export` wrote, as a model: its manifest, and an encoder over whatever runs its networks.

docs/models.md has the format. Nothing here loads torch, or the library that runs the networks before it is needed.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np

from clipkit.errors import ClipkitError, UsageError
from clipkit.models.base import Encoder, Identity, Preprocess
from clipkit.models.clip_tokenizer import TextTokenizer
from clipkit.models.identity import file_sha256
from clipkit.models.manifest import NEEDED, fault
from clipkit.models.names import MANIFEST
from clipkit.models.sessions import Once

if TYPE_CHECKING:
    from PIL import Image

FORMAT: Final = 1
KIND: Final = "model"
RUNTIMES: Final = {
    "onnx": "clipkit.models.onnx:OnnxTowers",
    "openvino": "clipkit.models.openvino:OpenVinoTowers",
    "executorch": "clipkit.models.executorch:ExecuTorchTowers",
    "coreml": "clipkit.models.coreml:CoreMlTowers",
    "torch.export": "clipkit.models.torch_program:TorchTowers",
}
"""Who runs the networks of a folder, by the name that its manifest gives: `module:class`, called as
`class(folder, manifest, threads)`; it gives `Towers`."""


_RAW = 1 << 22  # pixels of a picture that a network is given whole; many of them wait for it at once
_LONG = 32  # times as long as wide: resized by the short side, such a strip would be enormous, and onnxruntime is off


class Towers(Protocol):
    """The networks of an exported folder. They may be opened when they are first asked for.

    Calls come from several threads at once.
    """

    space: str  # which kernels compute: the library and its version

    def image(self, pixels: np.ndarray, outputs: Sequence[str]) -> list[np.ndarray]:
        """`pixels` (f32 [n, 3, h, w], or u8 [n, h, w, 3] where the preprocessing is in the network) to `joint` [n, d]
        and, if among `outputs`, `backbone` [n, backbone_dim]."""

    def text(self, tokens: np.ndarray) -> np.ndarray:
        """Token ids, int64 [n, context_length], to `joint` [n, d]."""


def load(folder: Path, *, threads: int = 1) -> ExportedEncoder:
    """An encoder from an exported folder. threads: that one call may use.

    That all files are there, and as long as they were, is looked at here. A tower's are compared with their sha256
    while it is first opened and run, which takes as long: who only wants pictures, or finds all features in the cache,
    waits for none of it. The other files are compared here.
    Raises UsageError for a head, ClipkitError for a newer format, an unknown runtime, a file that is missing or not the
    one that was exported.
    """
    manifest = read_manifest(folder)
    for name in manifest["files"]:
        if not _is_inside(name) or not (folder / name).is_file():
            raise ClipkitError(f"{folder} lacks the file {name}", "export the model again, or copy it whole")
    for name, expected in manifest.get("bytes", {}).items():
        if name in manifest["files"] and (found := (folder / name).stat().st_size) != expected:
            said = f"{folder / name} is not the file that was exported ({found:,} bytes, it had {expected:,})"
            raise ClipkitError(said, "copy it again")
    _check_files(folder, {name: sha for name, sha in manifest["files"].items() if not _tower_of(name)})
    runtime = runtime_of(manifest)
    if runtime not in RUNTIMES:
        raise ClipkitError(f"{folder} runs on {runtime!r}, which this clipkit doesn't know", "update clipkit")
    module, _, name = RUNTIMES[runtime].partition(":")
    towers: Towers = getattr(importlib.import_module(module), name)(folder, manifest, threads)
    return ExportedEncoder(folder, manifest, towers)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The clipkit.json of an exported model, checked as far as it can be without the other files."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ClipkitError(f"cannot read {path}: {error}") from None
    if isinstance(manifest, dict) and manifest.get("kind") == "head":
        said = f"{folder} is a head, a classifier with labels of its own: it gives no features"
        raise UsageError(said, f"run it: python {folder / 'run.py'} PHOTO")
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise ClipkitError(f"{path} does not describe a model", "expected what `clipkit export` writes")
    if manifest.get("format") != FORMAT:
        raise ClipkitError(
            f"{folder} has format {manifest.get('format')}; this clipkit reads {FORMAT}", "update clipkit"
        )
    if missing := sorted(NEEDED - manifest.keys()):
        raise ClipkitError(f"{path} lacks {', '.join(missing)}", "export the model again")
    if said := fault(manifest):
        raise ClipkitError(f"{path} is damaged: {said}", "export the model again")
    return manifest


def identity_of(manifest: dict[str, Any]) -> Identity:
    """The identity that an exported model carries: its source's, or its own if quantising changed the weights."""
    described = manifest["preprocess"]
    preprocess = Preprocess(**{**described, **{key: tuple(described[key]) for key in ("size", "mean", "std")}})
    about = manifest["identity"]
    return Identity(
        manifest["name"], about["weights"], preprocess, about["activation"], about["dim"], about.get("extra", {})
    )


def runtime_of(manifest: dict[str, Any]) -> str:
    """What runs the networks."""
    return str(manifest.get("runtime", "onnx"))


def towers_of(manifest: dict[str, Any]) -> tuple[str, ...]:
    """Which networks there are: image, text or both."""
    return tuple(manifest.get("towers", ("image", "text")))


class ExportedEncoder(Encoder):
    """The two networks of a folder, or one of them: where it holds one tower, the other's features are an error.

    Where the manifest says that rows are independent, batches run as they come; else (activations quantised by the
    range of a batch, pictures of several sizes) row by row.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], towers: Towers) -> None:
        self.backend = runtime_of(manifest)
        self.identity = identity_of(manifest)
        self.logit_scale, self.logit_bias = manifest["logit_scale"], manifest["logit_bias"]
        self.context_length = manifest["context_length"]
        self.precision = manifest["precision"]
        self.backbone_dim = manifest.get("backbone_dim")
        self.few_shot_space = manifest.get("few_shot_space", "joint")
        self.towers = towers_of(manifest)
        self.raw = manifest.get("pixels", "normalised") == "raw"
        self._at_once = self.batch_size if manifest["row_independent"] and not self.raw else 1
        self._folder, self._networks = folder, towers
        self._checked = {
            tower: Once(partial(_begun, partial(_check_files, folder, _files_of(manifest, tower))))
            for tower in self.towers
        }
        about = manifest["tokenizer"]
        self._tokenizer = about and TextTokenizer.open(
            folder / about["file"], self.context_length, pad=about["pad"], clean=about["clean"]
        )

    @property
    def space(self) -> str:
        return f"{super().space}/{self._networks.space}"

    @property
    def place(self) -> str:
        return str(self._folder)

    def preprocess(self, image: Image.Image) -> np.ndarray:
        from clipkit.images import transform
        from clipkit.images.decode import REDUCED

        described = self.identity.preprocess
        if not self.raw:
            return transform.apply(described, image)
        if REDUCED in image.info or image.width * image.height > _RAW or _is_strip(image.size):
            # Resized here to what the network would resize it to: it finds nothing left to do.
            if described.resize:
                described = replace(described, size=(described.resize, described.resize), resize=None)
            image = transform.frame(described, image)
        return np.asarray(image)

    def encode_images(
        self, batch: np.ndarray | Sequence[np.ndarray], *, backbone: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        self.require("image")
        names = ["joint", "backbone"] if backbone and self.backbone_dim else ["joint"]
        with self._whole("image"):
            outputs = self._rows(batch, len(names), lambda part: self._networks.image(part, names))
        return _unit(outputs[0]), outputs[1].astype(np.float32) if len(names) > 1 else None

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        self.require("text")
        tokens = self._tokenizer(texts)
        with self._whole("text"):
            return _unit(self._rows(tokens, 1, lambda part: [self._networks.text(part)])[0])

    def count_tokens(self, texts: list[str]) -> list[int]:
        self.require("text")
        return [self._tokenizer.count(text) for text in texts]

    def close(self) -> None:
        del self._networks

    @contextmanager
    def _whole(self, tower: Literal["image", "text"]) -> Iterator[None]:
        """Raise ClipkitError at the end unless the tower is as it was exported: it is opened and run while its files
        are still being compared, which takes as long."""
        compared: Future[bool] = self._checked[tower]()
        try:
            yield
        except ClipkitError:
            compared.result()  # a file that is not the exported one says more than what came of it
            raise
        compared.result()

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


def _is_strip(size: tuple[int, int]) -> bool:
    return max(size) > _LONG * min(size)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows [n, d] scaled to length 1, each on its own, f32."""
    rows = rows.astype(np.float64)
    unit: np.ndarray = (rows / np.sqrt((rows * rows).sum(axis=1, keepdims=True))).astype(np.float32)
    return unit


def _tower_of(name: str) -> str:
    """Whose network a file holds, or part of it: `image.onnx.data` is the image tower's; "" for the other files."""
    tower = name.partition(".")[0]
    return tower if tower in ("image", "text") else ""


def _files_of(manifest: dict[str, Any], tower: str) -> dict[str, str]:
    return {name: sha for name, sha in manifest["files"].items() if _tower_of(name) == tower}


def _is_inside(name: str) -> bool:
    """Whether a file's name in a manifest leads nowhere but into the folder."""
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def _begun(work: Callable[[], bool]) -> Future[bool]:
    """Work in a thread of its own."""
    thread = ThreadPoolExecutor(1)
    future = thread.submit(work)
    thread.shutdown(wait=False)
    return future


def _check_files(folder: Path, files: dict[str, str]) -> bool:
    """Raise ClipkitError for a file that isn't the one that was exported; else True."""
    for name, expected in files.items():
        if file_sha256(folder / name) != expected:
            said = f"{folder / name} is not the file that was exported (its sha256 differs)"
            raise ClipkitError(said, "copy it again")
    return True
