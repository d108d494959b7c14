"""Models that see and read, of next to no size, with random weights; and for them 24 pictures, shapes of colours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipkit.models.open_clip import OpenClipEncoder, untrained
from tests.training.pairs import paint

ARCH = "soup-seeing"
_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def register(folder: Path) -> None:
    """Make the architecture known to open_clip."""
    import open_clip

    path = folder / f"{ARCH}.json"
    path.write_text(json.dumps(_CONFIG))
    open_clip.add_model_config(path)


def folders(root: Path, seeds: Sequence[int]) -> list[str]:
    """Random models in folders called by their seeds."""
    made = []
    for seed in seeds:
        untrained(ARCH, seed=seed, device="cpu").save_model(root / f"seed-{seed}")
        made.append(f"{root}/seed-{seed}/")
    return made


def moved(theta: OpenClipEncoder, by: float, folder: Path) -> str:
    """theta + by * noise, the same noise each time."""
    import torch

    state = theta.module().state_dict()
    random = torch.Generator().manual_seed(0)
    for tensor in state.values():
        if tensor.is_floating_point() and tensor.ndim > 1:
            tensor += by * tensor.std() * torch.randn(tensor.shape, generator=random)
    theta.save_state(folder, state)
    return f"{folder}/"


def shapes(folder: Path, word: int = 1) -> list[dict[str, Any]]:
    """Records with a label, their pictures by absolute paths. word: which one of `a red circle` is the label."""
    records = paint(folder)
    return [one | {"image": str(folder / one["image"]), "label": str(one["text"]).split()[word]} for one in records]


def write(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def captions(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name != "label"} for record in records]
