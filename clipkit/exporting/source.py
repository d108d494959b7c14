"""What is exported: a model, with an adapter's weights in it where there is one, as modules or as ONNX graphs."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from clipkit.errors import ClipkitError, UsageError
from clipkit.exporting import files
from clipkit.models.load import load
from clipkit.models.names import parse

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from clipkit.exporting.base import Tower
    from clipkit.methods.adapters.files import Saved
    from clipkit.models.base import Encoder
    from clipkit.models.clip_tokenizer import TextTokenizer


def open_encoder(model: str | None, adapter: str | None) -> tuple[Encoder, Saved | None]:
    """The model on the CPU in f32; an adapter that changes its weights (lora, svd) is merged into it.

    model: None takes the adapter's own. Raises ClipkitError where the adapter was made for another model.
    """
    if adapter is None:
        return load(model or "lite", device="cpu"), None
    from clipkit.methods.adapters import files
    from clipkit.methods.adapters.folding import model_of, trusted

    saved = files.load(adapter)
    with model_of(saved, model) as name:
        encoder = load(name, device="cpu")
    saved.require(encoder.identity)
    with trusted(adapter):
        return saved.adapter.attach(encoder), saved


class Source:
    """The model to export. Its graphs are made when they are first asked for, and kept in `scratch`.

    saved: the adapter, where one was named. opset: of the graphs that torch writes.
    """

    def __init__(self, model: str | None, adapter: str | None, scratch: Path, opset: int | None = None) -> None:
        self.encoder, self.saved = open_encoder(model, adapter)
        self._named = model
        self._scratch, self._opset = scratch, opset
        self._graphs: dict[str, Path] = {}
        self._modules: dict[str, nn.Module] = {}

    def module(self, tower: Tower) -> nn.Module:
        """A tower as a torch module (`clipkit.exporting.graphs`), in eval mode on the CPU.

        Raises ClipkitError where the model is not one of open_clip.
        """
        if tower not in self._modules:
            from clipkit.exporting import graphs

            made = graphs.ImageModule if tower == "image" else graphs.TextModule
            self._modules[tower] = made(self._open_clip().module())
        return self._modules[tower]

    def graph(self, tower: Tower) -> Path:
        """A tower as one ONNX file in f32 with a free batch: `pixels` to `joint` and perhaps `backbone`, `tokens` to
        `joint`. Not to be changed. Raises ClipkitError where the model has none."""
        if tower not in self._graphs:
            self._graphs[tower] = self._make(tower)
        return self._graphs[tower]

    def example(self, tower: Tower, rows: int = 2) -> Any:
        """An input of a tower as a torch tensor, [rows, ...]."""
        from clipkit.exporting import graphs

        identity = self.encoder.identity
        return graphs.example(tower, identity.preprocess.size, self.encoder.context_length, rows)

    def noise(self, tower: Tower, rows: int = 8) -> np.ndarray:
        """An input of a tower, [rows, ...], without torch."""
        return files.noise(tower, self.encoder.identity.preprocess.size, self.encoder.context_length, rows)

    def tokenizer(self, folder: Path) -> dict[str, Any]:
        """Write tokenizer.json into FOLDER; returns what the manifest says of it."""
        tokenizer = self.require_tokenizer()
        tokenizer.save(folder / "tokenizer.json")
        return {"file": "tokenizer.json", "clean": tokenizer.clean, "pad": tokenizer.pad}

    def require_tokenizer(self) -> TextTokenizer:
        """The model's own, where it is one that other programs can have.

        Raises ClipkitError for a tokenizer that only its own library has.
        """
        from clipkit.models.clip_tokenizer import TextTokenizer

        tokenizer = getattr(self.encoder, "_tokenizer", None)
        if not isinstance(tokenizer, TextTokenizer):
            raise ClipkitError(
                f"the tokenizer of {self.encoder.identity.name} cannot be written as a tokenizer.json",
                "--tower image ships its image tower",
            )
        return tokenizer

    def _open_clip(self) -> Any:
        encoder: Encoder = self.encoder
        if encoder.backend != "open_clip":
            raise UsageError(
                f"{encoder.identity.name} is no model of open_clip, of which this target is made",
                "onnx, fp16, openvino and head take it",
            )
        return encoder

    def _make(self, tower: Tower) -> Path:
        backend = self.encoder.backend
        path = self._scratch / f"{tower}.onnx"
        if backend == "open_clip":
            from clipkit.exporting import graphs

            graphs.export_onnx(self.module(tower), tower, self.example(tower), path, self._opset)
            return path
        if backend == "lite":
            if tower == "text":
                hint = "ship its image tower (--tower image), or answers about labels (--to head --labels cats,dogs)"
                raise UsageError("the text tower of lite is of its own kind, and no network alone", hint)
            from clipkit.exporting.carried import image_graph

            return image_graph(path)
        if backend == "onnx":
            return self._copied(tower, path)
        raise UsageError(f"an export for {backend} cannot be exported again", "name the model that it was made of")

    def _copied(self, tower: Tower, path: Path) -> Path:
        assert self._named is not None
        folder = parse(self._named).path
        encoder: Any = self.encoder
        if encoder.precision != "f32" or encoder.raw:
            raise UsageError(f"{self._named} is {encoder.precision}: only plain f32 exports can be exported again")
        if tower not in encoder.towers:
            held = encoder.towers[0]
            raise UsageError(f"{self._named} holds the {held} tower alone", f"add --tower {held}")
        graph = folder / f"{tower}.onnx"
        files.ship(graph, path, external=files.data_file(graph).exists())
        return path


def scratch_folder() -> TemporaryDirectory[str]:
    """Where graphs lie until they are shipped."""
    return TemporaryDirectory(prefix="clipkit-export-")
