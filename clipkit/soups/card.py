"""A soup as a folder: a model that open_clip loads, and soup.json beside it, which says what was mixed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from clipkit import __version__
from clipkit.models import hub_folder
from clipkit.models.identity import WeightsDigest
from clipkit.models.model_tokenizer import copy_tokenizer
from clipkit.stream.record import encode_json

if TYPE_CHECKING:
    import torch

    from clipkit.soups.mixing import Terms
    from clipkit.soups.states import State

CARD: Final = "soup.json"
FORMAT: Final = 1


def said_of(terms: Terms) -> list[dict[str, Any]]:
    """What was mixed, as JSON: coefficients, names without folders, digests of weights."""
    return [{"coefficient": coefficient, "model": state.name, "weights": state.weights} for coefficient, state in terms]


def save(
    out: str | Path, like: State, mixture: Iterable[tuple[str, torch.Tensor]], said: Mapping[str, Any]
) -> dict[str, Any]:
    """Write a model: the weights of a mixture, and for all else `like`, one of the models mixed.

    mixture: as `mix` gives it, in order of the names. said: JSON for soup.json; `recipe` and `terms` at least, no path
    and no time. Returns what was made, as JSON: what was said, and the model's name and digest. OUT appears when it is
    whole. Raises UsageError where OUT holds something, ClipkitError where it cannot be written.
    """
    digest = WeightsDigest()
    source = like.outline.source
    card: dict[str, Any] = {}

    def read() -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in mixture:
            digest.add(name, tensor)
            yield name, tensor

    def add(fresh: Path) -> None:
        copy_tokenizer(source.tokenizer, source.config["text_cfg"], fresh)
        card.update({"format": FORMAT, "kind": "soup", "clipkit": __version__, **said, "weights": digest.hexdigest()})
        (fresh / CARD).write_bytes(msgspec.json.format(encode_json(card), indent=2) + b"\n")

    described = like.outline.identity
    with hub_folder.writing(Path(out)):
        hub_folder.write(out, read(), source.config, described.preprocess, add)
    made = replace(described, name=Path(out).resolve().name, weights=card["weights"])
    return {"kind": "soup", "out": str(out), "model": str(made), **said, "weights": card["weights"]}
