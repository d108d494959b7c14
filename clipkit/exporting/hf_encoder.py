"""What was written for transformers, run by transformers: its model, its image processor, its tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from safetensors import safe_open
from torch.nn import functional

from clipkit.errors import ClipkitError
from clipkit.exporting import hf_config, hf_layout
from clipkit.methods.captioners.hf import quiet
from clipkit.models.base import Encoder, Identity
from clipkit.models.identity import weights_digest

if TYPE_CHECKING:
    from PIL import Image

_ACTIVATIONS = {"gelu": "gelu", "quick_gelu": "quickgelu", "gelu_pytorch_tanh": "gelu_tanh"}


class TransformersEncoder(Encoder):
    """A folder that `--to hf` wrote: transformers' model and tokenizer, on one thread, in batches of one padded shape.

    Its identity is worked out anew from the weights in the file, taken back to open_clip's names: the source's, if they
    are the source's. Pixels are open_clip's, so that what is measured is the model; `own_pixels` has those of
    transformers, whose crop lies a pixel beside open_clip's where a margin is odd (transformers 5 rounds it down).
    Raises ClipkitError where transformers doesn't find every weight, or finds others.
    """

    backend = "transformers"

    def __init__(self, folder: Path) -> None:
        config = _read(folder / "config.json")
        clip = config["model_type"] == "clip"
        with quiet(transformers.utils.logging):
            kind: Any = transformers.CLIPModel if clip else transformers.SiglipModel
            pixels = transformers.CLIPImageProcessor if clip else transformers.SiglipImageProcessor
            tokens = transformers.CLIPTokenizer if clip else transformers.PreTrainedTokenizerFast
            model, found = kind.from_pretrained(folder, local_files_only=True, output_loading_info=True)
            self._pixels: Any = pixels.from_pretrained(folder, local_files_only=True)
            self._tokenizer: Any = tokens.from_pretrained(folder, local_files_only=True)
        if wrong := [name for key in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in found[key]]:
            raise ClipkitError(f"transformers doesn't fill {folder.name} as it was written: {wrong[0]}")
        torch.set_num_threads(1)
        self._model: Any = model.eval()
        self.identity = _identity(folder, config, model)
        self.logit_scale = float(model.logit_scale.detach().exp())
        self.logit_bias = None if clip else float(model.logit_bias.detach())
        self.context_length = int(config["text_config"]["max_position_embeddings"])

    @property
    def space(self) -> str:
        return f"{super().space}/transformers-{transformers.__version__}/torch-{torch.__version__}"

    def preprocess(self, image: Image.Image) -> np.ndarray:
        from clipkit.images.transform import apply

        return apply(self.identity.preprocess, image)

    def own_pixels(self, image: Image.Image) -> np.ndarray:
        """What transformers' image processor makes of a picture, f32 [3, h, w]."""
        pixels: np.ndarray = self._pixels(images=image, return_tensors="np")["pixel_values"][0]
        return np.ascontiguousarray(pixels, np.float32)

    def encode_images(
        self, batch: np.ndarray | Sequence[np.ndarray], *, backbone: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        pixels = torch.from_numpy(np.ascontiguousarray(batch, np.float32))
        return self._run(self._model.get_image_features, {"pixel_values": pixels}), None

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        if not texts:
            return np.zeros((0, self.identity.dim), np.float32)
        whole = {"padding": "max_length", "truncation": True, "max_length": self.context_length, "return_tensors": "pt"}
        return self._run(self._model.get_text_features, dict(self._tokenizer(texts, **whole)))

    def count_tokens(self, texts: list[str]) -> list[int]:
        return [len(self._tokenizer(text).input_ids) for text in texts]

    def close(self) -> None:
        del self._model

    def _run(self, features: Callable[..., Any], inputs: dict[str, torch.Tensor]) -> np.ndarray:
        """Unit features [n, d] of inputs [n, ...]."""
        count, size = len(next(iter(inputs.values()))), self.batch_size
        rows = [np.zeros((0, self.identity.dim), np.float32)]
        with torch.inference_mode():
            for start in range(0, count, size):
                parts = {name: value[start : start + size] for name, value in inputs.items()}
                output = features(**{name: _padded(part, size) for name, part in parts.items()})
                rows.append(functional.normalize(output.pooler_output, dim=-1)[: count - start].numpy())
        return np.concatenate(rows)


def _padded(rows: torch.Tensor, size: int) -> torch.Tensor:
    """Rows, and the first of them again until there are SIZE."""
    return torch.cat([rows, rows[:1].expand(size - len(rows), *rows.shape[1:])])


def processor_facts(encoder: TransformersEncoder, pictures: Sequence[Image.Image]) -> dict[str, float]:
    """What transformers' own image processor changes: cosines of features of its pixels and of open_clip's."""
    pairs = [
        [encoder.encode_images([make(picture)])[0][0] for make in (encoder.preprocess, encoder.own_pixels)]
        for picture in pictures
    ]
    cosines = [float(np.dot(ours.astype(np.float64), theirs)) for ours, theirs in pairs]
    return {"cosine_min": round(min(cosines), 6), "cosine_mean": round(sum(cosines) / len(cosines), 6)}


def _identity(folder: Path, config: dict[str, Any], model: Any) -> Identity:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        prefix = file.metadata()["open_clip_text_prefix"]
    vision, text = config["vision_config"], config["text_config"]
    state = hf_layout.to_open_clip(model.state_dict(), hf_layout.lines_of(config, prefix))
    return Identity(
        name=folder.resolve().name,
        weights=weights_digest(state),
        preprocess=hf_config.preprocess_of(_read(folder / "preprocessor_config.json"), vision["image_size"]),
        activation="+".join(sorted({_ACTIVATIONS[tower["hidden_act"]] for tower in (vision, text)})),
        dim=int(text.get("projection_dim") or text["projection_size"]),
    )


def _read(path: Path) -> dict[str, Any]:
    described: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return described
