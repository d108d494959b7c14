"""The tokenizer that an open_clip model was trained with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

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
    context = int(text_cfg.get("context_length", 77))
    kind = _kind(name, text_cfg)
    if kind == "clip":
        return clip_tokenizer(context, options.get("clean", "lower"))
    if kind == "file":
        return _from_file(name, text_cfg["hf_tokenizer_name"], context, options.get("clean", "whitespace"))
    return LibraryTokenizer(_library(name))


def copy_tokenizer(name: str, text_cfg: dict[str, Any], folder: Path) -> None:
    """Put into FOLDER the files that the model's tokenizer takes there, as `local-dir:`; CLIP's own takes none."""
    kind = _kind(name, text_cfg)
    if kind == "file":
        for path in _files(name, text_cfg["hf_tokenizer_name"]):
            shutil.copyfile(path, folder / path.name)
    elif kind == "library":
        tokenizer = _library(name)
        if not isinstance(tokenizer, HFTokenizer):
            raise ClipkitError(f"the tokenizer of {name} cannot be written to a folder that open_clip loads")
        tokenizer.tokenizer.save_pretrained(folder)


def _kind(name: str, text_cfg: dict[str, Any]) -> Literal["clip", "file", "library"]:
    """Whose tokenizer it is: CLIP's own, that of a tokenizer.json, or open_clip's object."""
    options = text_cfg.get("tokenizer_kwargs") or {}
    plain = options.keys() <= {"clean"} and not text_cfg.get("tokenizer_mode")
    source = text_cfg.get("hf_tokenizer_name")
    siglip = ":" not in name and "siglip" in name.lower()  # as open_clip has it: of architectures, not of paths
    if not source and not siglip and plain:
        return "clip"
    return "file" if source and plain else "library"


def _from_file(name: str, source: str, context: int, clean: Clean) -> TextTokenizer:
    """Read a tokenizer.json and what tokenizer_config.json says of padding: the same ids as transformers gives."""
    tokens, config = _files(name, source)
    described = json.loads(config.read_text(encoding="utf-8"))
    pad = described.get("pad_token")
    if described.get("padding_side", "right") != "right" or pad is None:
        raise ClipkitError(f"the tokenizer {source} pads in a way that clipkit does not know")
    return TextTokenizer.open(tokens, context, pad=pad["content"] if isinstance(pad, dict) else pad, clean=clean)


def _files(name: str, source: str) -> tuple[Path, Path]:
    """Its tokenizer.json and tokenizer_config.json. Raises ClipkitError where they are neither here nor to be had."""
    files = ("tokenizer.json", "tokenizer_config.json")
    if not name.startswith(LOCAL):
        tokens, config = (download.hub_file(source, (file,), f"the tokenizer {source}") for file in files)
        return tokens, config
    folder = Path(name.removeprefix(LOCAL))
    tokens, config = (folder / file for file in files)
    if not tokens.is_file() or not config.is_file():
        raise ClipkitError(f"{folder} lacks the model's tokenizer: {' and '.join(files)}", f"hf download {source}")
    return tokens, config


def _library(name: str) -> HFTokenizer | SigLipTokenizer:
    try:
        tokenizer = open_clip.get_tokenizer(name)
    except ImportError:
        raise MissingPackage("transformers", f"the tokenizer of {name}", "pip install transformers") from None
    except (OSError, ValueError) as error:
        raise ClipkitError(f"the tokenizer of {name} could not be had: {str(error).splitlines()[0]}") from None
    if not isinstance(tokenizer, HFTokenizer | SigLipTokenizer):
        raise ClipkitError(f"{name} asks for a tokenizer setting that is for training")
    return tokenizer
