"""The weights of open_clip models that low-rank and singular-value methods change, and what they are trained on.

A weight's address is its name in the state dict, with `/q`, `/k` or `/v` where these three are rows of one matrix
(`visual.transformer.resblocks.0.attn.in_proj_weight/q`). Importing this imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from clipkit.errors import UsageError
from clipkit.methods.adapters.data import Task

if TYPE_CHECKING:
    from clipkit.models.open_clip import OpenClipEncoder

Kind: TypeAlias = Literal["qkv", "out", "mlp"]
BLOCKS: Final = ("q", "k", "v")
_TEXTS: Final = 128  # prompts that go through the text tower at once; of more, activations are computed twice
# Tails of a module's name behind its layer's number: open_clip's, timm's and transformers' towers.
_QKV: Final = re.compile(r"(.+\.)?(qkv|(q|k|v)(_proj)?|query|key|value)")
_OUT: Final = re.compile(r"(attn|self_attn)\.(proj|out_proj)|attention\.output\.dense")
_MLP: Final = re.compile(r"mlp\..+|(intermediate|output)\.dense")


@dataclass(frozen=True)
class Weight:
    """A matrix in a layer of a tower. name: in the state dict. module holds it as `attribute`. fused: of q, k and v."""

    name: str
    module: nn.Module
    attribute: str
    kind: Kind
    fused: bool

    @property
    def value(self) -> torch.Tensor:
        held: torch.Tensor = getattr(self.module, self.attribute).detach()
        return held

    @property
    def addresses(self) -> tuple[str, ...]:
        """One, or those of q, k and v."""
        return tuple(f"{self.name}/{block}" for block in BLOCKS) if self.fused else (self.name,)

    def parts(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Address and rows of each."""
        return zip(self.addresses, self.value.chunk(len(self.addresses)), strict=True)


def weights(model: nn.Module, encoder: str, kinds: set[Kind]) -> list[Weight]:
    """The matrices of some kinds in all layers of a tower ("vision", "text") or of "both".

    Raises UsageError for a tower that has none (ResNets and ConvNeXts have no attention layers).
    """
    found = [(tower, weight) for tower, weight in _all(model) if weight.kind in kinds and encoder in ("both", tower)]
    for tower in ("vision", "text") if encoder == "both" else (encoder,):
        if not any(of == tower for of, _ in found):
            named = _tower(model, tower)
            other = "text" if tower == "vision" else "vision"
            raise UsageError(
                f"the {tower} tower ({named}) has no layers with {' or '.join(sorted(kinds))} weights to adapt",
                f"adapt the other one alone: encoder={other}",
            )
    return [weight for _, weight in found]


def _all(model: nn.Module) -> Iterator[tuple[str, Weight]]:
    for name, module in model.named_modules():
        if name.startswith("text_decoder."):  # CoCa's captions are no part of either tower
            continue
        tower = "vision" if name.startswith("visual.") else "text"
        numbered, _, tail = re.sub(r"\.(\d+)\.", r".\1#", name).rpartition("#")
        if not numbered:  # pools and projections are no layers
            continue
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            yield tower, Weight(f"{name}.in_proj_weight", module, "in_proj_weight", "qkv", True)
        elif isinstance(module, nn.Linear) and (kind := _kind(tail)) is not None:
            yield tower, Weight(f"{name}.weight", module, "weight", kind, tail.endswith("qkv"))


def _kind(tail: str) -> Kind | None:
    if _QKV.fullmatch(tail):
        return "qkv"
    if _OUT.fullmatch(tail):
        return "out"
    return "mlp" if _MLP.fullmatch(tail) else None


def _tower(model: Any, tower: str) -> str:
    """What people know a tower by."""
    module = model.visual if tower == "vision" else getattr(model, "text", None) or model.transformer
    return type(getattr(module, "trunk", module)).__name__


def check(state: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError unless an adapter's arrays, from a file perhaps, are f32 and these: no more, no less."""
    for name, shape in shapes.items():
        if name not in state:
            raise ValueError(f"it lacks {name}")
        found = state[name]
        if found.shape != shape or found.dtype != np.float32:
            raise ValueError(f"{name} is {found.dtype} {list(found.shape)}, and the model takes float32 {list(shape)}")
    if unknown := state.keys() - shapes.keys():
        raise ValueError(f"the model has no weight for {min(unknown)}")


def add(model: nn.Module, deltas: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Add to a model's weights, by address, in place. Raises ValueError where the sum is not finite."""
    add_to(dict(model.named_parameters()), deltas)


def add_to(held: Mapping[str, torch.Tensor], deltas: Iterable[tuple[str, torch.Tensor]]) -> None:
    """The same for weights by name."""
    with torch.no_grad():
        for address, delta in deltas:
            name, _, block = address.partition("/")
            rows = held[name].chunk(len(BLOCKS))[BLOCKS.index(block)] if block else held[name]
            rows += delta.to(rows)
            if not rows.isfinite().all():
                raise ValueError(f"{address} is not finite with it")


def class_loss(
    model: Any, encoder: OpenClipEncoder, task: Task, *, text: bool
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Cross-entropy of scale * f . t over the classes. text: t is computed by the model in each step, as `classifier`
    does; else it is the task's. Nothing of the model is trained but what comes to require it after this.
    """
    model.requires_grad_(False)
    device = encoder.device
    fixed = torch.from_numpy(np.asarray(task.text, np.float32)).to(device)
    classes: Callable[[], torch.Tensor] = ClassTexts(model, encoder, task) if text else lambda: fixed

    def loss(pixels: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        images = model.encode_image(pixels, normalize=True)
        return functional.cross_entropy(task.scale * images @ classes().T, labels)

    return loss


class ClassTexts:
    """The class features f32 [C, D] of a model whose text tower changes: of each class's prompts the unit features,
    their mean, made unit again."""

    def __init__(self, model: Any, encoder: OpenClipEncoder, task: Task) -> None:
        texts = list(dict.fromkeys(text for prompts in task.prompts for text in prompts))
        number = {text: row for row, text in enumerate(texts)}
        pairs = [(row, number[text]) for row, prompts in enumerate(task.prompts) for text in prompts]
        self._model = model
        tokens = encoder.tokenize(texts).to(encoder.device)
        self._tokens = shortened(model, tokens, max(encoder.count_tokens(texts)))
        self._class, self._text = (torch.tensor(column, device=encoder.device) for column in zip(*pairs, strict=True))
        self._count = len(task.prompts)

    def __call__(self) -> torch.Tensor:
        parts = torch.split(self._tokens, _TEXTS)
        if len(parts) == 1:
            features = self._encode(self._tokens)
        else:  # as if at once, in the memory of one part: the others' activations are computed anew on the way back
            features = torch.cat([checkpoint(self._encode, part, use_reentrant=False) for part in parts])
        sums = features.new_zeros(self._count, features.shape[1]).index_add(0, self._class, features[self._text])
        return functional.normalize(sums, dim=-1)

    def _encode(self, tokens: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self._model.encode_text(tokens, normalize=True)
        return features


def shortened(model: Any, tokens: torch.Tensor, length: int) -> torch.Tensor:
    """Tokens cut to `length`, that of the longest text, where what is behind it cannot matter: in a causal tower that
    is pooled at a text's end. The features are the same; of CLIP's 77 tokens a short prompt has 8."""
    text = getattr(model, "text", model)
    pooled = getattr(text, "pool_type", None) or getattr(text, "text_pool_type", None)
    if pooled not in ("argmax", "eos") or text.attn_mask is None or getattr(text, "cls_emb", None) is not None:
        return tokens
    text.positional_embedding = nn.Parameter(text.positional_embedding[:length].clone(), requires_grad=False)
    text.attn_mask = text.attn_mask[:length, :length].clone()
    return tokens[:, :length].contiguous()


def to_numpy(tensors: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Trained tensors as arrays f32."""
    return {name: value.detach().float().cpu().numpy() for name, value in tensors.items()}
