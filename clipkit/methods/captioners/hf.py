"""A captioning model of transformers on this machine: BLIP, GIT, ViT-GPT2 and their like."""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from clipkit.errors import ClipkitError, MissingPackage, RecordError, UsageError
from clipkit.methods.captioners.base import Captioner, Request, Written
from clipkit.methods.parameters import param
from clipkit.stream.captions import Caption

if TYPE_CHECKING:
    from clipkit.features.embedder import Embedder

_NEEDS = "it has to be an image-to-text model of transformers' own, such as Salesforce/blip-image-captioning-base"


@dataclass(kw_only=True)
class Hf(Captioner):
    """Captions by beam search, of a model that transformers has code for: no code of a repository is ever run, and
    weights are read from safetensors alone.

    Images go through one at a time, so that no answer depends on what else is in a batch; on a CPU as many at once as
    there are cores. Weights are f32. Deterministic.
    """

    name: ClassVar[str] = "hf"
    takes: ClassVar[frozenset[str]] = frozenset({"device"})

    repo: str = param("", "a repository of the hub, or a folder")
    revision: str = param("", "of the repository: a commit, a tag; without it, what it has now")
    prompt: str = param("", "how captions begin, for models that can go on with a text: 'a photo of'")
    count: int = param(1, "captions of an image, at most", low=1)
    beams: int = param(3, "how many captions are followed", low=1)
    max_tokens: int = param(30, "new tokens of a caption at most", low=1)

    def __post_init__(self) -> None:
        if self.count > self.beams:
            raise ValueError(f"{self.beams} beams give no {self.count} captions: raise beams")

    def setup(self, embedder: Embedder | None, device: str) -> None:
        if not self.repo:
            raise UsageError("hf: which model?", "--set repo=Salesforce/blip-image-captioning-base, or a folder")
        transformers = _transformers()
        import torch

        from clipkit.models.device import choose
        from clipkit.models.identity import weights_digest

        local = Path(self.repo).is_dir()
        name = str(Path(self.repo).resolve()) if local else self.repo
        pinned: dict[str, Any] = {"trust_remote_code": False, "revision": self.revision or "main"}
        try:
            with quiet(transformers.utils.logging):
                self._pixels = transformers.AutoImageProcessor.from_pretrained(name, **pinned)
                self._tokenizer = transformers.AutoTokenizer.from_pretrained(name, **pinned)
                model = transformers.AutoModelForImageTextToText.from_pretrained(
                    name, use_safetensors=True, dtype=torch.float32, **pinned
                )
        except (OSError, ValueError, KeyError, ImportError) as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise ClipkitError(f"{self.repo} cannot be loaded as a captioner: {said[0]}", _NEEDS) from None
        self._device = choose(device)
        self._model = model.to(self._device).eval()
        self._identity = f"{Path(name).name if local else self.repo}@{weights_digest(model.state_dict())[:12]}"
        self.lanes = 0 if self._device == "cpu" else 1
        torch.set_num_threads(1)

    @property
    def identity(self) -> str:
        return self._identity

    def begin(self, request: Request) -> Any:
        from clipkit.images.decode import decode

        assert request.data is not None
        return self._pixels(images=decode(request.data()), return_tensors="pt")["pixel_values"]

    def finish(self, begun: list[Any]) -> list[Written | RecordError]:
        return [self._written(pixels) for pixels in begun]

    def close(self) -> None:
        if hasattr(self, "_model"):
            del self._model

    def _written(self, pixels: Any) -> Written | RecordError:
        import torch

        more = {}
        if self.prompt:
            ids = self._tokenizer(self.prompt, return_tensors="pt")["input_ids"]
            more["input_ids"] = ids[:, :-1] if ids[0, -1] == self._tokenizer.sep_token_id else ids
        with torch.inference_mode():
            found = self._model.generate(
                pixel_values=pixels.to(self._device),
                **{name: value.to(self._device) for name, value in more.items()},
                do_sample=False,
                num_beams=self.beams,
                num_return_sequences=self.count,
                max_new_tokens=self.max_tokens,
            )
        said = self._tokenizer.batch_decode(found, skip_special_tokens=True)
        texts = dict.fromkeys(text for raw in said if (text := " ".join(raw.split())))
        if not texts:
            return RecordError("empty-answer", "the model wrote no word")
        return Written([Caption(text, self.name, self.identity) for text in texts])


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise MissingPackage("transformers", "the captioner hf", "pip install 'clipkit[hf]'") from None


@contextlib.contextmanager
def quiet(own: Any) -> Iterator[None]:
    """Without the progress bars and warnings of transformers. own: its `utils.logging`."""
    before = own.get_verbosity()
    own.set_verbosity(logging.CRITICAL)
    own.disable_progress_bar()
    try:
        yield
    finally:
        own.set_verbosity(before)
