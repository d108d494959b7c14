"""A tiny CoCa whose captions end: its decoder likes some tokens, the end among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.models import tiny

ARCH = "tiny-talker"
END = 49407
WORDS = (320, 1929, 525, 518, 2368, 269, 537, 1629)  # a dog on the cat . and playing ("." is 269)


def register(folder: Path) -> None:
    """Make the architecture known to open_clip: `tiny-coca`, of one width, without which it cannot decode."""
    import open_clip

    config = json.loads(json.dumps(tiny.CONFIGS["tiny-coca"]))
    config["text_cfg"]["width"] = config["multimodal_cfg"]["width"] = 32
    if ARCH not in open_clip.list_models():
        path = folder / f"{ARCH}.json"
        path.write_text(json.dumps(config))
        open_clip.add_model_config(path)


def make() -> Any:
    """The model, in eval mode; the same numbers on any machine."""
    import torch

    model = tiny.make(ARCH)
    draw = np.random.default_rng(0)
    with torch.no_grad():
        for _, value in sorted(model.named_parameters()):
            if value.ndim >= 2:
                value.copy_(torch.from_numpy(draw.normal(0, 0.4, tuple(value.shape)).astype(np.float32)))
        decoder = model.text_decoder
        decoder.ln_final.bias.fill_(0.5)
        decoder.text_projection *= 0.3
        decoder.text_projection[:, [*WORDS, END]] *= 1.5
        decoder.text_projection[:, [*WORDS, END]] += 0.3
        decoder.text_projection[:, END] += 0.18
    return model.eval()


def save(path: Path) -> Path:
    return tiny.save(make(), path)


def pictures(count: int) -> np.ndarray:
    """Model inputs f32 [count, 3, 32, 32]."""
    return np.random.default_rng(1).normal(0, 1, (count, 3, 32, 32)).astype(np.float32)
