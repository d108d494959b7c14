"""open_clip's names of tensors and those of transformers, both ways, and the configuration that goes with them.

A layout is a list of lines; each says which tensors of the one hold the numbers of which of the other. Every tensor of
a model stands in one line: what a line lacks, or what no line has, is an error, and never dropped or left random.

`CLIPModel` holds what Radford et al. (2021) describe: a ViT with a class token and a causal text transformer. It is
also what most ViTs of open_clip are. `SiglipModel` holds that of Zhai et al. (2023): a ViT of timm without a class
token, pooled by attention, and a text transformer that sees all tokens and takes the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from clipkit.errors import ClipkitError

State = dict[str, torch.Tensor]
Change = Literal["", "transposed", "unwrapped", "wrapped"]


@dataclass(frozen=True)
class Line:
    """Tensors of open_clip (`ours`), joined by rows, and those of transformers, equal parts of the same rows.

    parts: how many shares of the rows each of ours has. change: what becomes of ours on the way; `unwrapped` takes a
    first axis of length 1 away, `wrapped` adds one.
    """

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    parts: tuple[int, ...] = (1,)
    change: Change = ""

    def there(self, state: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
        """From open_clip to transformers."""
        whole = _changed(_joined([state[name] for name in self.ours]), self.change)
        pieces = whole.chunk(len(self.theirs)) if len(self.theirs) > 1 else (whole,)
        yield from zip(self.theirs, (piece.contiguous() for piece in pieces), strict=True)

    def back(self, state: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
        """From transformers to open_clip."""
        whole = _changed(_joined([state[name] for name in self.theirs]), _REVERSED[self.change])
        share = len(whole) // sum(self.parts) if len(self.ours) > 1 else 0  # a single number has no rows
        sizes = [share * part for part in self.parts]
        pieces = torch.split_with_sizes(whole, sizes) if share else (whole,)
        yield from zip(self.ours, (piece.contiguous() for piece in pieces), strict=True)


_REVERSED: dict[Change, Change] = {"": "", "transposed": "transposed", "unwrapped": "wrapped", "wrapped": "unwrapped"}


def _joined(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat(tensors) if len(tensors) > 1 else tensors[0]


def _changed(tensor: torch.Tensor, change: Change) -> torch.Tensor:
    if change == "transposed":
        return tensor.T
    if change == "unwrapped":
        return tensor.squeeze(0)
    return tensor.unsqueeze(0) if change == "wrapped" else tensor


def to_transformers(state: Mapping[str, torch.Tensor], lines: Iterable[Line]) -> State:
    """A state dict of open_clip by transformers' names. Raises ClipkitError for tensors without a place, or missing."""
    lines = list(lines)
    _require(state, [name for line in lines for name in line.ours])
    return {name: tensor for line in lines for name, tensor in line.there(state)}


def to_open_clip(state: Mapping[str, torch.Tensor], lines: Iterable[Line]) -> State:
    """The inverse of `to_transformers`, bit for bit."""
    lines = list(lines)
    _require(state, [name for line in lines for name in line.theirs])
    return {name: tensor for line in lines for name, tensor in line.back(state)}


def _require(state: Mapping[str, torch.Tensor], names: list[str]) -> None:
    from clipkit.models.checkpoint import some

    if extra := sorted(state.keys() - set(names)):
        raise ClipkitError(f"there is no place for {some(extra)}")
    if missing := sorted(set(names) - state.keys()):
        raise ClipkitError(f"it has no {some(missing)}")


def lines_of(config: Mapping[str, Any], text_prefix: str) -> list[Line]:
    """The layout of a model that transformers' `config` (as in config.json) describes.

    text_prefix: what stands before the names of the text tower: "text." in open_clip's CustomTextCLIP, "" in its CLIP.
    """
    image, text = (int(config[tower]["num_hidden_layers"]) for tower in ("vision_config", "text_config"))
    make = _clip_lines if config["model_type"] == "clip" else _siglip_lines
    return list(make(image, text, text_prefix))


def _clip_lines(image_layers: int, text_layers: int, text: str) -> Iterator[Line]:
    yield _same("logit_scale", "logit_scale")
    yield _same("visual.class_embedding", "vision_model.embeddings.class_embedding")
    yield _same("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight")
    yield _same("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight")
    yield from _pair("visual.ln_pre", "vision_model.pre_layrnorm")  # so spelt in transformers
    yield from _blocks("visual.transformer", "vision_model.encoder", image_layers)
    yield from _pair("visual.ln_post", "vision_model.post_layernorm")
    yield Line(("visual.proj",), ("visual_projection.weight",), change="transposed")
    yield from _text_lines(text, text_layers)
    yield Line((f"{text}text_projection",), ("text_projection.weight",), change="transposed")


def _siglip_lines(image_layers: int, text_layers: int, text: str) -> Iterator[Line]:
    trunk, vision = "visual.trunk", "vision_model"
    yield Line(("logit_scale",), ("logit_scale",), change="wrapped")
    yield Line(("logit_bias",), ("logit_bias",), change="wrapped")
    yield from _pair(f"{trunk}.patch_embed.proj", f"{vision}.embeddings.patch_embedding")
    place = f"{vision}.embeddings.position_embedding.weight"
    yield Line((f"{trunk}.pos_embed",), (place,), change="unwrapped")
    for layer in range(image_layers):
        ours, theirs = f"{trunk}.blocks.{layer}", f"{vision}.encoder.layers.{layer}"
        yield from _pair(f"{ours}.norm1", f"{theirs}.layer_norm1")
        for kind in ("weight", "bias"):
            yield Line((f"{ours}.attn.qkv.{kind}",), _queries(theirs, kind))
        yield from _pair(f"{ours}.attn.proj", f"{theirs}.self_attn.out_proj")
        yield from _pair(f"{ours}.norm2", f"{theirs}.layer_norm2")
        yield from _pair(f"{ours}.mlp.fc1", f"{theirs}.mlp.fc1")
        yield from _pair(f"{ours}.mlp.fc2", f"{theirs}.mlp.fc2")
    yield from _pair(f"{trunk}.norm", f"{vision}.post_layernorm")
    pool, head = f"{trunk}.attn_pool", f"{vision}.head"
    yield _same(f"{pool}.latent", f"{head}.probe")
    for kind in ("weight", "bias"):
        ours_here = (f"{pool}.q.{kind}", f"{pool}.kv.{kind}")
        yield Line(ours_here, (f"{head}.attention.in_proj_{kind}",), parts=(1, 2))
    yield from _pair(f"{pool}.proj", f"{head}.attention.out_proj")
    yield from _pair(f"{pool}.norm", f"{head}.layernorm")
    yield from _pair(f"{pool}.mlp.fc1", f"{head}.mlp.fc1")
    yield from _pair(f"{pool}.mlp.fc2", f"{head}.mlp.fc2")
    yield from _text_lines(text, text_layers)
    yield from _pair(f"{text}text_projection", "text_model.head")


def _text_lines(text: str, layers: int) -> Iterator[Line]:
    yield _same(f"{text}token_embedding.weight", "text_model.embeddings.token_embedding.weight")
    yield _same(f"{text}positional_embedding", "text_model.embeddings.position_embedding.weight")
    yield from _blocks(f"{text}transformer", "text_model.encoder", layers)
    yield from _pair(f"{text}ln_final", "text_model.final_layer_norm")


def _blocks(ours: str, theirs: str, layers: int) -> Iterator[Line]:
    """open_clip's own transformer."""
    for layer in range(layers):
        here, there = f"{ours}.resblocks.{layer}", f"{theirs}.layers.{layer}"
        yield from _pair(f"{here}.ln_1", f"{there}.layer_norm1")
        for kind in ("weight", "bias"):
            yield Line((f"{here}.attn.in_proj_{kind}",), _queries(there, kind))
        yield from _pair(f"{here}.attn.out_proj", f"{there}.self_attn.out_proj")
        yield from _pair(f"{here}.ln_2", f"{there}.layer_norm2")
        yield from _pair(f"{here}.mlp.c_fc", f"{there}.mlp.fc1")
        yield from _pair(f"{here}.mlp.c_proj", f"{there}.mlp.fc2")


def _queries(layer: str, kind: str) -> tuple[str, ...]:
    return tuple(f"{layer}.self_attn.{name}_proj.{kind}" for name in "qkv")


def _same(ours: str, theirs: str) -> Line:
    return Line((ours,), (theirs,))


def _pair(ours: str, theirs: str) -> Iterator[Line]:
    """A module with a weight and a bias."""
    for kind in ("weight", "bias"):
        yield _same(f"{ours}.{kind}", f"{theirs}.{kind}")
