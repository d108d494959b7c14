"""A tiny CoCa whose captions end: its decoder likes some tokens, the end among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.models import tiny

ARCH, FEW_WORDS = "tiny-talker", "tiny-talker-few-words"  # with CLIP's vocabulary, and with one that costs no time
SIZES = {ARCH: 49408, FEW_WORDS: 96}
WORDS = {
    ARCH: (320, 1929, 525, 518, 2368, 269, 537, 1629),  # a dog on the cat . and playing
    FEW_WORDS: (10, 21, 32, 43, 54, 65, 76, 87),
}


def register(folder: Path) -> None:
    """Make the architectures known to open_clip: `tiny-coca`, of one width, without which it cannot decode."""
    import open_clip

    for arch, size in SIZES.items():
        config = json.loads(json.dumps(tiny.CONFIGS["tiny-coca"]))
        for part in ("text_cfg", "multimodal_cfg"):
            config[part] |= {"width": 32, "vocab_size": size}
        if arch not in open_clip.list_models():
            path = folder / f"{arch}.json"
            path.write_text(json.dumps(config))
            open_clip.add_model_config(path)


def start(arch: str) -> int:
    """The token before a caption; the one after it is the next, as in CLIP's vocabulary."""
    return SIZES[arch] - 2


def end(arch: str) -> int:
    return SIZES[arch] - 1


def make(arch: str = ARCH) -> Any:
    """A model, in eval mode; the same numbers on any machine."""
    import torch

    model = tiny.make(arch)
    likely, last = WORDS[arch], end(arch)
    draw = np.random.default_rng(0)
    with torch.no_grad():
        for _, value in sorted(model.named_parameters()):
            if value.ndim >= 2:
                value.copy_(torch.from_numpy(draw.normal(0, 0.4, tuple(value.shape)).astype(np.float32)))
        decoder = model.text_decoder
        decoder.ln_final.bias.fill_(0.5)
        decoder.text_projection *= 0.3
        decoder.text_projection[:, [*likely, last]] *= 1.5
        decoder.text_projection[:, [*likely, last]] += 0.3
        decoder.text_projection[:, last] += 0.18
    return model.eval()


def save(path: Path) -> Path:
    return tiny.save(make(), path)


def pictures(count: int) -> np.ndarray:
    """Model inputs f32 [count, 3, 32, 32]."""
    return np.random.default_rng(1).normal(0, 1, (count, 3, 32, 32)).astype(np.float32)
