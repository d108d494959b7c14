"""An open_clip model without its weights: built where tensors take no memory, and held against its file.

What its identity, its tensors and its architecture are is known then for the price of reading the file's header.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from open_clip.coca_model import MultimodalCfg
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from clipkit.errors import ClipkitError
from clipkit.models import open_clip as backend
from clipkit.models.base import Identity
from clipkit.models.checkpoint import Shapes, misfits
from clipkit.models.names import ModelName
from clipkit.models.open_clip import Source
from clipkit.models.weights_file import WeightsFile

_PARTS: Final = {"vision_cfg": CLIPVisionCfg, "text_cfg": CLIPTextCfg, "multimodal_cfg": MultimodalCfg}
# What a configuration says of training, or of where weights once came from: two models may differ in it and be one.
_TRAINING: Final = {
    "patch_dropout",
    "timm_drop",
    "timm_drop_path",
    "timm_model_pretrained",
    "hf_model_pretrained",
    "init_logit_scale",
    "init_logit_bias",
    "output_dict",
    "output_tokens",
    "cast_dtype",
}


@dataclass(frozen=True, slots=True)
class Outline:
    """A model's description. identity: with "" for the digest of the weights, which nobody has read yet.

    shapes: its tensors by name, as the architecture has them, which is as the file has them. architecture: the settings
    that decide what is computed, dotted name -> value, defaults written out. notices: what the user should hear.
    """

    source: Source
    file: WeightsFile
    identity: Identity
    shapes: Shapes
    architecture: dict[str, Any]
    notices: tuple[str, ...]


def outline(name: ModelName) -> Outline:
    """Describe a model of open_clip. Raises ClipkitError where its weights cannot be had, or are not stored by the
    names and shapes of its architecture.
    """
    source = backend.resolve(name)
    file = WeightsFile(source.weights)
    notices = backend.check_activation(name, source, file.shapes)
    model = backend.build(source, name.shown, device="meta")
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    _fits(name.shown, shapes, file.shapes)
    identity = Identity(
        name=name.shown,
        weights="",
        preprocess=backend.preprocess_of(source.preprocess, model),
        activation=backend.activation_of(model),
        dim=int(source.config["embed_dim"]),
    )
    return Outline(source, file, identity, shapes, dict(_settings(source.config)), tuple(notices))


def _fits(shown: str, shapes: Shapes, found: Shapes) -> None:
    """open_clip converts some files when it loads them (other names, position tables of another size); not here."""
    if said := misfits(shapes, found):
        raise ClipkitError(
            f"{shown} does not fit its architecture as it is stored: {said}",
            "is it for another one? If --model takes it, clipkit export --to safetensors stores it so that it fits",
        )


def _settings(config: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """An architecture's settings with their defaults; None and False are both "not so" at the top."""
    for name, value in config.items():
        if name in _PARTS:
            known = _PARTS[name](**value)
            yield from ((f"{name}.{key}", inner) for key, inner in asdict(known).items() if key not in _TRAINING)
        elif name not in _TRAINING and value not in (None, False):
            yield name, value
