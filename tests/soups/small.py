"""Random open_clip models of next to no size, in files: what is mixed, and what it is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clipkit.soups.states import State, state
from tests.models import tiny

_TEXT = {"context_length": 8, "vocab_size": 96, "width": 16, "heads": 2, "layers": 1}
_VIT = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": _TEXT,
}
_RESNET = {"embed_dim": 8, "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}, "text_cfg": _TEXT}
CONFIGS: dict[str, dict[str, Any]] = {
    "soup-vit": _VIT,
    "soup-vit-quickgelu": {**_VIT, "quick_gelu": True},
    "soup-vit-wide": {**_VIT, "embed_dim": 16},
    "soup-vit-heads": {**_VIT, "text_cfg": {**_TEXT, "heads": 4}},  # the same tensors: only the configuration differs
    "soup-vit-sigmoid": {**_VIT, "init_logit_bias": -10},
    "soup-resnet": _RESNET,
}


def register(folder: Path) -> None:
    """Make the architectures known to open_clip."""
    tiny.register(folder, CONFIGS)


def model(seed: int, arch: str = "soup-vit") -> Any:
    """A random model whose every tensor, buffers of batch norms too, is its seed's own."""
    import torch

    made = tiny.make(arch, seed)
    with torch.no_grad():
        for name, value in made.state_dict().items():
            if name.endswith("num_batches_tracked"):
                value.fill_(seed)
            elif name.endswith("running_var"):
                value.copy_(torch.rand_like(value) + 0.5)
            elif value.ndim < 2:  # biases, scales, logit_scale
                value.add_(torch.randn_like(value) * 0.1)
    return made


def stored(path: Path, seed: int, arch: str = "soup-vit") -> str:
    """A model's file, by a name that `--model` takes."""
    return f"{arch}:{tiny.save(model(seed, arch), path)}"


def states(folder: Path, count: int, arch: str = "soup-vit") -> list[State]:
    """Some models; every second file is of torch.save."""
    folder.mkdir(exist_ok=True)
    names = (f"{number}{'.pt' if number % 2 else '.safetensors'}" for number in range(count))
    return [state(stored(folder / name, number, arch)) for number, name in enumerate(names)]


def arrays(one: State) -> dict[str, np.ndarray]:
    """A state's tensors, by numpy and all at once; floats as f64."""
    import torch
    from safetensors.torch import load_file

    path = one.outline.source.weights
    read = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    return {name: (value.double() if value.is_floating_point() else value).numpy() for name, value in read.items()}
