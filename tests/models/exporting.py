"""Writes an exported folder of an open_clip model, as docs/models.md describes it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

from clipkit.models.clip_tokenizer import clip_tokenizer
from clipkit.models.open_clip import OpenClipEncoder

BATCH = torch.export.Dim("batch", min=1, max=256)


class ImageTower(torch.nn.Module):
    """`pixels` to `joint` and `backbone`, for a ViT."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.visual, self.proj = model.visual, model.visual.proj
        self.visual.proj = None

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = self.visual(pixels)
        return torch.nn.functional.normalize(pooled @ self.proj, dim=-1), pooled


class TextTower(torch.nn.Module):
    """`tokens` to `joint`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        joint: torch.Tensor = self.model.encode_text(tokens, normalize=True)
        return joint


def export(arch: str, checkpoint: Path, encoder: OpenClipEncoder, folder: Path) -> Path:
    """Export a tiny ViT whose checkpoint `encoder` was loaded from."""
    folder.mkdir()
    model = open_clip.create_model(arch)
    open_clip.load_checkpoint(model, str(checkpoint))
    model.eval()
    size = encoder.identity.preprocess.size
    _onnx(TextTower(model), torch.zeros(2, encoder.context_length, dtype=torch.int64), folder / "text.onnx", ["joint"])
    _onnx(ImageTower(model), torch.zeros(2, 3, *size), folder / "image.onnx", ["joint", "backbone"])
    clip_tokenizer(encoder.context_length).save(folder / "tokenizer.json")
    write_manifest(folder, encoder)
    return folder


def write_manifest(folder: Path, encoder: OpenClipEncoder, **changes: Any) -> None:
    identity = encoder.identity
    manifest = {
        "format": 1,
        "kind": "model",
        "name": identity.name,
        "identity": {"weights": identity.weights, "activation": identity.activation, "dim": identity.dim, "extra": {}},
        "preprocess": asdict(identity.preprocess),
        "logit_scale": encoder.logit_scale,
        "logit_bias": encoder.logit_bias,
        "context_length": encoder.context_length,
        "backbone_dim": encoder.backbone_dim,
        "tokenizer": {"file": "tokenizer.json", "clean": "lower", "pad": 0},
        "precision": "f32",
        "row_independent": True,
        "files": {
            name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
            for name in ("image.onnx", "text.onnx", "tokenizer.json")
        },
    }
    (folder / "clipkit.json").write_text(json.dumps(manifest | changes))


def _onnx(module: torch.nn.Module, example: torch.Tensor, path: Path, outputs: list[str]) -> None:
    """With an example batch of 2 (1 would be taken for a constant), one file, and what it prints to stdout dropped."""
    names = ["tokens" if example.dtype == torch.int64 else "pixels"]
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (example,),
            str(path),
            input_names=names,
            output_names=outputs,
            dynamic_shapes=({0: BATCH},),
            external_data=False,
            verbose=False,
        )


def random_pixels(encoder: Any, count: int) -> np.ndarray:
    shape = (count, 3, *encoder.identity.preprocess.size)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
