"""The tokenizer that an open_clip model was trained with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import open_clip
from open_clip.tokenizer import HFTokenizer, SigLipTokenizer, basic_clean, canonicalize_text

from clipkit.errors import ClipkitError, MissingPackage
from clipkit.models import download
from clipkit.models.clip_tokenizer import Clean, TextTokenizer, clip_tokenizer

if TYPE_CHECKING:
    import numpy as np

LOCAL = "local-dir:"


class ModelTokenizer(Protocol):
    """What an encoder needs of a tokenizer; `TextTokenizer` is one."""

    context_length: int

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Token ids, int64 [n, context_length]."""

    def count(self, text: str) -> int:
        """Tokens of a text, specials included, before any cut."""


class LibraryTokenizer:
    """open_clip's own tokenizer object, for the few that need transformers."""

    def __init__(self, tokenizer: HFTokenizer | SigLipTokenizer) -> None:
        self._tokenizer = tokenizer
        self.context_length: int = tokenizer.context_length

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        ids: np.ndarray = self._tokenizer(list(texts)).numpy()
        return ids

    def count(self, text: str) -> int:
        clean = getattr(self._tokenizer, "clean_fn", lambda raw: canonicalize_text(basic_clean(raw)))
        return len(self._tokenizer.tokenizer(clean(text)).input_ids)


def model_tokenizer(name: str, text_cfg: dict[str, Any]) -> ModelTokenizer:
    """A model's tokenizer: CLIP's, or the tokenizer.json that SigLIP and others have, on the hub or in their folder.

    name: as open_clip takes it (`ViT-B-32`, `hf-hub:...`, `local-dir:...`). Models with other settings get open_clip's
    own object. Raises ClipkitError for a file that is neither here nor to be had, MissingPackage for transformers.
    """
    options = text_cfg.get("tokenizer_kwargs") or {}
    plain = options.keys() <= {"clean"} and not text_cfg.get("tokenizer_mode")
    context = int(text_cfg.get("context_length", 77))
    source = text_cfg.get("hf_tokenizer_name")
    if not source and "siglip" not in name.lower() and plain:
        return clip_tokenizer(context, options.get("clean", "lower"))
    if source and plain:
        return _from_file(name, source, context, options.get("clean", "whitespace"))
    return _from_library(name)


def _from_file(name: str, source: str, context: int, clean: Clean) -> TextTokenizer:
    """Read a tokenizer.json and what tokenizer_config.json says of padding: the same ids as transformers gives."""
    files = ("tokenizer.json", "tokenizer_config.json")
    if name.startswith(LOCAL):
        folder = Path(name.removeprefix(LOCAL))
        tokens, config = (folder / file for file in files)
        if not tokens.is_file() or not config.is_file():
            raise ClipkitError(f"{folder} lacks the model's tokenizer: {' and '.join(files)}", f"hf download {source}")
    else:
        tokens, config = (download.hub_file(source, (file,), f"the tokenizer {source}") for file in files)
    described = json.loads(config.read_text(encoding="utf-8"))
    pad = described.get("pad_token")
    if described.get("padding_side", "right") != "right" or pad is None:
        raise ClipkitError(f"the tokenizer {source} pads in a way that clipkit does not know")
    return TextTokenizer.open(tokens, context, pad=pad["content"] if isinstance(pad, dict) else pad, clean=clean)


def _from_library(name: str) -> LibraryTokenizer:
    try:
        tokenizer = open_clip.get_tokenizer(name)
    except ImportError:
        raise MissingPackage("transformers", f"the tokenizer of {name}", "pip install transformers") from None
    except (OSError, ValueError) as error:
        raise ClipkitError(f"the tokenizer of {name} could not be had: {str(error).splitlines()[0]}") from None
    if not isinstance(tokenizer, HFTokenizer | SigLipTokenizer):
        raise ClipkitError(f"{name} asks for a tokenizer setting that is for training")
    return LibraryTokenizer(tokenizer)
