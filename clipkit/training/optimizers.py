"""AdamW and Lion: which parameters decay, at what share of the learning rate each is trained, and their state."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import nn

from clipkit.training.settings import Settings

# What comes above the layers of a tower, and the layers themselves: names of open_clip's, timm's, transformers' towers.
_ABOVE: Final = re.compile(
    r"(proj|ln_post|ln_final|norm|final_layer_norm|head|fc_norm|attn_pool|attnpool|text_projection|pooler)(\.|$)"
)
_BELOW: Final = re.compile(r"\.(patch_embed|embeddings|stem)\.")  # which have norms and projections of their own
_LAYER: Final = re.compile(
    r"(.*?\.)?((stages|layers)\.\d+\.blocks\.\d+|layer\d\.\d+|(resblocks|blocks|block|layers|layer|stages)\.\d+)\."
)


class Lion(torch.optim.Optimizer):
    """Lion (Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023).

    With the gradient g and the momentum m: w becomes w - lr * (sign(b1 m + (1 - b1) g) + weight_decay * w), and m
    becomes b2 m + (1 - b2) g. It wants a lr 3 to 10 times smaller than AdamW's, and a decay as much larger.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step with the gradients that are there."""
        assert closure is None
        for group in self.param_groups:
            held = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not held:
                continue
            gradients = [parameter.grad for parameter in held]
            for parameter in held:
                if not self.state[parameter]:
                    self.state[parameter]["momentum"] = torch.zeros_like(parameter)
            momenta = [self.state[parameter]["momentum"] for parameter in held]
            first, second = group["betas"]
            updates = torch._foreach_lerp(momenta, gradients, 1 - first)
            torch._foreach_sign_(updates)
            torch._foreach_mul_(held, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(held, updates, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, gradients, 1 - second)


def make(parameters: Mapping[str, nn.Parameter], settings: Settings) -> torch.optim.Optimizer:
    """The optimizer of a run. Each group has `share`: its learning rate is the schedule's times this."""
    groups = grouped(parameters, settings.layer_decay, settings.weight_decay)
    if settings.optimizer == "lion":
        return Lion(groups, lr=settings.lr, betas=settings.betas)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=settings.betas, eps=settings.epsilon, fused=True)


def grouped(parameters: Mapping[str, nn.Parameter], layer_decay: float, weight_decay: float) -> list[dict[str, Any]]:
    """Groups for an optimizer, in the order of the names: of one share and one weight decay each."""
    rates = shares(parameters, layer_decay)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        decay = weight_decay if decays(name, parameter) else 0.0
        groups.setdefault((rates[name], decay), []).append(parameter)
    return [{"params": held, "share": share, "weight_decay": decay} for (share, decay), held in groups.items()]


def decays(name: str, parameter: torch.Tensor) -> bool:
    """Whether weight decay pulls at a parameter: not at gains, biases and the logits' scale (as in open_clip_train)."""
    return parameter.ndim >= 2 and "bias" not in name and "logit_scale" not in name


def shares(names: Iterable[str], decay: float) -> dict[str, float]:
    """Each parameter's share of the learning rate: decay ** (layers of its tower above it).

    What is above the layers of a tower (norms, pools, projections), the logits' scale and CoCa's decoder have 1, the
    last layer has decay, what is below the first (embeddings, stems) decay ** (layers + 1). Layers are told by their
    names, in the order in which the model has them.
    """
    names = list(names)
    depth: dict[str, int | None] = {}
    layers: dict[str, list[str]] = {"visual": [], "text": []}
    for name in names:
        tower = "visual" if name.startswith("visual.") else "text"
        if name.startswith(("text_decoder.", "logit_")):
            depth[name] = None
        elif (match := _LAYER.match(name)) is not None:
            # What makes a stage smaller is of its first block's layer.
            layer = match[0] if ".blocks." in match[0] else f"{match[0]}blocks.0."
            if layer not in layers[tower]:
                layers[tower].append(layer)
            depth[name] = layers[tower].index(layer) + 1
        else:
            depth[name] = None if _ABOVE.search(name) and not _BELOW.search(name) else 0
    counts = {tower: len(found) for tower, found in layers.items()}

    def share(name: str) -> float:
        below = depth[name]
        count = counts["visual" if name.startswith("visual.") else "text"]
        return 1.0 if below is None else float(decay ** (count + 1 - below))

    return {name: share(name) for name in names}


def state(optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    """What an optimizer remembers, as NAME/KEY, without copies. A parameter that never had a gradient has nothing."""
    return {
        f"{name}/{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, nn.Parameter], saved: Mapping[str, torch.Tensor]
) -> None:
    """Make an optimizer remember what `state` gave. Raises ValueError for what is of another model."""
    keys: Sequence[str] = ("momentum",) if isinstance(optimizer, Lion) else ("step", "exp_avg", "exp_avg_sq")
    if unknown := saved.keys() - {f"{name}/{key}" for name in parameters for key in keys}:
        raise ValueError(f"the optimizer has no {min(unknown)}")
    optimizer.state.clear()
    for name, parameter in parameters.items():
        found = {key: saved[f"{name}/{key}"] for key in keys if f"{name}/{key}" in saved}
        if not found:
            continue
        if len(found) < len(keys) or any(value.shape not in (parameter.shape, ()) for value in found.values()):
            raise ValueError(f"the optimizer's state of {name} is of another model")
        optimizer.state[parameter] = {
            key: value.to(parameter.device, torch.float32).clone() for key, value in found.items()
        }
