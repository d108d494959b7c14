"""What transformers must be told of a model of open_clip: config.json, preprocessor_config.json, the tokenizer's files.

Where transformers has no word for something that changes the numbers, the model is refused, and the line says for what.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from open_clip.transformer import ResidualAttentionBlock, TextTransformer, VisionTransformer
from timm.models import vision_transformer as timm_vit
from torch import nn

from clipkit.errors import ClipkitError
from clipkit.models.base import Identity, Preprocess
from clipkit.models.clip_tokenizer import END, START, clip_tokenizer
from clipkit.models.open_clip import activation_of

_ACTIVATIONS = {"gelu": "gelu", "quickgelu": "quick_gelu", "gelu_tanh": "gelu_pytorch_tanh"}
_FILTERS = {"bilinear": 2, "bicubic": 3}  # Pillow's numbers
_CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel"}
_START, _END = 49406, 49407  # CLIP's tokens around a text


def text_prefix(model: nn.Module) -> str:
    """What stands before the names of the text tower in the model's state dict."""
    return "text." if hasattr(model, "text") else ""


def config_of(model: nn.Module, identity: Identity) -> dict[str, Any]:
    """config.json of an open_clip model, but for what the tokenizer says. Raises ClipkitError where transformers has no
    such model."""
    siglip = isinstance(getattr(model.visual, "trunk", None), timm_vit.VisionTransformer)
    kind = "siglip" if siglip else "clip"
    if misfits := list(_siglip_misfits(model) if siglip else _clip_misfits(model)):
        raise misfit(kind, identity, "; ".join(misfits))
    vision = _timm_vision(model.visual) if siglip else _vision(model.visual)
    text = _text(_text_of(model))
    side = identity.preprocess.size[0]
    described: dict[str, Any] = {
        "architectures": [_CLASSES[kind]],
        "model_type": kind,
        "vision_config": {"model_type": f"{kind}_vision_model", "image_size": side, "num_channels": 3, **vision},
        "text_config": {"model_type": f"{kind}_text_model", **text},
    }
    if siglip:
        described["text_config"]["projection_size"] = identity.dim
    else:
        described |= {"projection_dim": identity.dim}
        for tower in ("vision_config", "text_config"):
            described[tower]["projection_dim"] = identity.dim
    return described


def misfit(kind: str, identity: Identity, why: str) -> ClipkitError:
    """The line that refuses a model."""
    said = f"transformers' {_CLASSES[kind]} cannot hold {identity.name}: {why}"
    return ClipkitError(said, "--to safetensors takes every model of open_clip, --to onnx runs anywhere")


def _text_of(model: nn.Module) -> Any:
    return getattr(model, "text", model)


def _clip_misfits(model: Any) -> Iterator[str]:
    """What CLIPModel has no place for and no tensor would tell. Tensors are checked by name when they are mapped."""
    visual, text = model.visual, _text_of(model)
    if not isinstance(visual, VisionTransformer):
        inner = getattr(visual, "trunk", visual)
        yield f"its image tower is a {type(inner).__name__}, not a vision transformer"
        return
    if hasattr(model, "text_decoder"):
        yield "it has a text decoder (CoCa)"
        return
    if visual.attn_pool is not None or visual.pool_type != "tok":
        yield "its image tower doesn't take the class token"
    if len({*visual.patch_size}) > 1:
        yield "its patches are not square"
    if not _plain_blocks(visual.transformer):
        yield "its image tower has layers of another kind"
    yield from _text_misfits(text)
    if text is not model and not isinstance(text, TextTransformer):
        return
    if getattr(text, "attn_mask", None) is None:
        yield "its text tower has no causal mask"
    if not isinstance(text.text_projection, nn.Parameter):
        yield "its text projection has a bias, or is missing"
    if not _takes_end(model, text):
        yield "its text tower doesn't take the closing token"
    if getattr(model, "logit_bias", None) is not None:
        yield "it has a logit bias"
    yield from _common_misfits(model, visual, text)


def _siglip_misfits(model: Any) -> Iterator[str]:
    """The same for SiglipModel."""
    trunk, text = model.visual.trunk, _text_of(model)
    if text is model:
        yield "its text tower has no place for a bias of the projection"
        return
    if trunk.attn_pool is None or trunk.global_pool != "map" or trunk.attn_pool.pool != "token":
        yield "its image tower doesn't pool by attention"
        return
    if trunk.num_prefix_tokens:
        yield "its image tower has a class token"
    if len(model.visual.head) or isinstance(trunk.head, nn.Linear):
        yield "its image tower has a projection"
    if not all(type(block) is timm_vit.Block for block in trunk.blocks):
        yield "its image tower has layers of another kind"
    if trunk.attn_pool.num_heads != trunk.blocks[0].attn.num_heads:
        yield "its pooling has another number of heads than its layers"
    yield from _text_misfits(text)
    if not isinstance(text, TextTransformer):
        return
    if text.attn_mask is not None or text.use_pad_mask:
        yield "its text tower masks tokens"
    if text.pool_type != "last":
        yield "its text tower doesn't take the last token"
    if getattr(model, "logit_bias", None) is None:
        yield "it has no logit bias"
    yield from _common_misfits(model, model.visual, text)


def _text_misfits(text: Any) -> Iterator[str]:
    if not hasattr(text, "transformer") or not hasattr(text, "ln_final"):
        yield f"its text tower is a {type(text).__name__}, not open_clip's own"
    elif not _plain_blocks(text.transformer):
        yield "its text tower has layers of another kind"


def _common_misfits(model: Any, visual: Any, text: Any) -> Iterator[str]:
    if len({*visual.image_size}) > 1:
        yield "its pictures are not square"
    if model.logit_scale.ndim:
        yield "its logit scale is not a single number"
    for what, modules in (("image", [visual]), ("text", [text.transformer, text.ln_final])):
        if _activation(modules) is None:
            yield f"its {what} tower has activations of several kinds, or an unknown one"
        if len(_epsilons(modules)) != 1:
            yield f"its {what} tower has layer norms of several kinds"


def _plain_blocks(transformer: Any) -> bool:
    return all(type(block) is ResidualAttentionBlock for block in transformer.resblocks)


def _takes_end(model: Any, text: Any) -> bool:
    pool = model.text_pool_type if text is model else text.pool_type
    end = getattr(model, "text_eos_id", None) if text is model else text.eos_id
    return pool == "argmax" or (pool == "eos" and end == _END)


def _activation(modules: list[nn.Module]) -> str | None:
    found = {activation_of(module) for module in modules} - {"none"}
    return _ACTIVATIONS.get(found.pop()) if len(found) == 1 else None


def _epsilons(modules: list[nn.Module]) -> set[float]:
    norms = (norm for module in modules for norm in module.modules() if isinstance(norm, nn.LayerNorm))
    return {float(norm.eps) for norm in norms}


def _vision(visual: Any) -> dict[str, Any]:
    return _blocks(visual.transformer, [visual]) | {"patch_size": int(visual.patch_size[0])}


def _timm_vision(visual: Any) -> dict[str, Any]:
    trunk = visual.trunk
    return {
        "hidden_size": int(trunk.embed_dim),
        "intermediate_size": int(trunk.blocks[0].mlp.fc1.out_features),
        "num_hidden_layers": len(trunk.blocks),
        "num_attention_heads": int(trunk.blocks[0].attn.num_heads),
        "hidden_act": _activation([visual]),
        "layer_norm_eps": _epsilons([visual]).pop(),
        "patch_size": int(trunk.patch_embed.patch_size[0]),
    }


def _text(text: Any) -> dict[str, Any]:
    return _blocks(text.transformer, [text.transformer, text.ln_final]) | {
        "vocab_size": int(text.vocab_size),
        "max_position_embeddings": int(text.positional_embedding.shape[0]),
    }


def _blocks(transformer: Any, modules: list[nn.Module]) -> dict[str, Any]:
    first = transformer.resblocks[0]
    return {
        "hidden_size": int(transformer.width),
        "intermediate_size": int(first.mlp.c_fc.out_features),
        "num_hidden_layers": len(transformer.resblocks),
        "num_attention_heads": int(first.attn.num_heads),
        "hidden_act": _activation(modules),
        "layer_norm_eps": _epsilons(modules).pop(),
    }


def pixels_of(kind: str, identity: Identity) -> dict[str, Any]:
    """preprocessor_config.json. Raises ClipkitError for pixels that transformers' processors cannot make."""
    preprocess = identity.preprocess
    side = {"height": preprocess.size[0], "width": preprocess.size[1]}
    described: dict[str, Any] = {
        "processor_class": "CLIPProcessor" if kind == "clip" else "SiglipProcessor",
        "image_processor_type": "CLIPImageProcessor" if kind == "clip" else "SiglipImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": side,
        "resample": _FILTERS[preprocess.interpolation],
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }
    if preprocess.resize_mode == "squash":
        return described
    if preprocess.resize_mode != "shortest":
        raise misfit(kind, identity, f"its pictures are resized by the {preprocess.resize_mode} side and padded")
    if kind == "siglip":
        raise misfit(kind, identity, "its pictures are cropped, and SiglipImageProcessor only squashes them")
    short = preprocess.resize or preprocess.size[0]
    return described | {"size": {"shortest_edge": short}, "do_center_crop": True, "crop_size": side}


def preprocess_of(described: dict[str, Any], size: int) -> Preprocess:
    """The inverse of `pixels_of`. size: of the image tower."""
    red, green, blue = described["image_mean"]
    mean = (red, green, blue)
    red, green, blue = described["image_std"]
    names = {number: name for name, number in _FILTERS.items()}
    return Preprocess(
        size=(size, size),
        mean=mean,
        std=(red, green, blue),
        resize_mode="shortest" if described["do_center_crop"] else "squash",
        interpolation=names[described["resample"]],
    )


def write_tokenizer(
    kind: str, identity: Identity, made: Path, about: dict[str, Any], context: int, out: Path
) -> dict[str, int]:
    """Write the tokenizer's files into OUT; returns what text_config says of its tokens.

    made: a tokenizer.json as `TextTokenizer.save` writes it. about: its `clean` and `pad`, as in a manifest.
    CLIPTokenizer pads with the closing token, open_clip with 0: a causal tower that takes the first closing token sees
    neither. Raises ClipkitError for a tokenizer that is not CLIP's where CLIPModel takes no other.
    """
    tokens = json.loads(made.read_text(encoding="utf-8"))
    clip = tokens["model"] == _own_clip(made.with_name("clip.json"))
    common = {"model_max_length": context, "clean_up_tokenization_spaces": False}
    if kind == "clip":
        if not clip or about["clean"] != "lower":
            raise misfit(kind, identity, "its tokenizer is not CLIP's")
        _write_clip(tokens, out)
        special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
        config = common | special | {"tokenizer_class": "CLIPTokenizer"}
        _write(out / "special_tokens_map.json", special)
        _write(out / "tokenizer_config.json", config | {"processor_class": "CLIPProcessor"})
        return {"bos_token_id": _START, "eos_token_id": _END, "pad_token_id": _END}
    pad = _token(tokens, about["pad"])
    if clip:
        raise misfit(kind, identity, "CLIP's tokenizer pads it with 0, which is also a word")
    tokens["normalizer"] = _sequence(*_cleaning(about["clean"]), tokens["normalizer"])
    _write(out / "tokenizer.json", tokens)
    own = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": pad, "model_input_names": ["input_ids"]}
    _write(out / "special_tokens_map.json", {"pad_token": pad})
    _write(out / "tokenizer_config.json", common | own | {"processor_class": "SiglipProcessor"})
    return dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), int(about["pad"]))


def _own_clip(path: Path) -> Any:
    clip_tokenizer().save(path)
    return json.loads(path.read_text(encoding="utf-8"))["model"]


def _write_clip(tokens: dict[str, Any], out: Path) -> None:
    """CLIP's tokenizer in the new form, with the cleaning that CLIPTokenizer does, and in the old: vocab and merges."""
    tokens["normalizer"] = _sequence({"type": "NFC"}, _replace({"Regex": r"\s+"}, " "), {"type": "Lowercase"})
    _write(out / "tokenizer.json", tokens)
    _write(out / "vocab.json", tokens["model"]["vocab"])
    lines = ["#version: 0.2", *(" ".join(pair) for pair in tokens["model"]["merges"])]
    (out / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cleaning(clean: str) -> Iterator[dict[str, Any]]:
    """`clip_tokenizer.cleaned` in the words of a tokenizer.json, which has none for mojibake and HTML entities."""
    if clean == "canonicalize":
        yield _replace({"String": "_"}, " ")
        yield _replace({"Regex": "[" + "".join(f"\\{sign}" for sign in string.punctuation) + "]"}, "")
    yield _replace({"Regex": r"\s+"}, " ")
    yield {"type": "Strip", "strip_left": True, "strip_right": True}
    if clean != "whitespace":
        yield {"type": "Lowercase"}


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _sequence(*steps: dict[str, Any] | None) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": [step for step in steps if step]}


def _token(tokens: dict[str, Any], number: int) -> str:
    """The token of an id."""
    added = {entry["id"]: entry["content"] for entry in tokens["added_tokens"]}
    if number in added:
        return str(added[number])
    vocabulary = tokens["model"]["vocab"]
    if isinstance(vocabulary, list):  # of a Unigram model: pairs of token and score
        return str(vocabulary[number][0])
    return next(str(token) for token, index in vocabulary.items() if index == number)


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
