"""Tiny random open_clip models, one of each family, and their checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
CONFIGS: dict[str, dict[str, Any]] = {
    "tiny-vit": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": TEXT,
    },
    "tiny-vit-sigmoid": {
        "embed_dim": 32,
        "init_logit_bias": -10,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": TEXT,
    },
    "tiny-resnet": {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16},
        "text_cfg": TEXT,
    },
    "tiny-convnext": {
        "embed_dim": 32,
        "vision_cfg": {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear", "image_size": 64},
        "text_cfg": TEXT,
    },
    "tiny-coca": {
        "embed_dim": 32,
        "custom_text": True,
        "vision_cfg": {
            "image_size": 32,
            "layers": 2,
            "width": 64,
            "patch_size": 8,
            "attentional_pool": True,
            "attn_pooler_heads": 2,
            "attn_pooler_queries": 8,
            "output_tokens": True,
        },
        "text_cfg": {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {"context_length": 76, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    },
    "tiny-sigmoid": {
        "embed_dim": 64,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": {"timm_model_name": "test_vit", "timm_pool": "map", "timm_proj": "none", "image_size": 160},
        "text_cfg": {**TEXT, "context_length": 64, "no_causal_mask": True, "proj_bias": True, "pool_type": "last"},
    },
}
FAMILIES = tuple(CONFIGS)


def register(folder: Path, configs: Mapping[str, dict[str, Any]] = CONFIGS) -> None:
    """Make the architectures known to open_clip."""
    import open_clip

    for name, config in configs.items():
        if name not in open_clip.list_models():
            path = folder / f"{name}.json"
            path.write_text(json.dumps(config))
            open_clip.add_model_config(path)


def make(arch: str, seed: int = 0) -> Any:
    """A random model of an architecture, in eval mode."""
    import open_clip
    import torch

    torch.manual_seed(seed)
    model = open_clip.create_model(arch)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bn3.weight"):  # a ResNet begins with these at 0, and then all images look alike
                value.fill_(1.0)
            if name == "text_decoder.text_projection":  # open_clip leaves in it what was in memory before
                value.normal_(std=0.1)
    return model.eval()


def save(model: Any, path: Path) -> Path:
    """Its state dict, as .safetensors or with torch.save."""
    import torch
    from safetensors.torch import save_file

    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path
