"""CoCa (Yu et al., 2022) as open_clip has it: a CLIP model with a decoder that writes captions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from clipkit.errors import ClipkitError, RecordError, UsageError
from clipkit.methods.captioners.base import Captioner, Request, Written
from clipkit.methods.parameters import param
from clipkit.stream.captions import Caption
from clipkit.stream.hashing import share

if TYPE_CHECKING:
    from clipkit.features.embedder import Embedder

_START, _END = 49406, 49407  # of CLIP's tokenizer; `generate` knows no other
_HOW = "name one with --model, such as coca_ViT-B-32:laion2b_s13b_b90k; see `clipkit models --all`"


@dataclass(kw_only=True)
class Coca(Captioner):
    """Captions by open_clip's generator, of the model that `--model` names.

    `beam` search gives the best captions first and is deterministic; `nucleus` draws each caption anew (Holtzman et
    al., 2020), by hash of id, seed and number: equal ones of a record are written once, so that there may be fewer than
    `count`. A caption ends at its first period, as those of MobileCLIP's reinforced data sets do (Vasu et al., 2024).
    Only models with CLIP's own tokenizer. Each step goes through the whole caption so far, as open_clip's does.
    """

    name: ClassVar[str] = "coca"
    asks_model: ClassVar[bool] = True

    generation: Literal["beam", "nucleus"] = param("beam", "beam or nucleus: the likeliest captions, or drawn ones")
    count: int = param(1, "captions of an image, at most", low=1)
    beams: int = param(2, "beam: how many are followed; 2 is what open_clip's 6 in 3 groups come to", low=1)
    top_p: float = param(0.9, "nucleus: tokens are drawn from the likeliest that have this probability together", low=0)
    temperature: float = param(1.0, "nucleus: above 1 evens probabilities out, below 1 sharpens them", low=0.01)
    max_tokens: int = param(30, "tokens of a caption at most, first and last among them", low=3)
    min_tokens: int = param(5, "tokens before a caption may end", low=0)

    def __post_init__(self) -> None:
        if self.min_tokens >= self.max_tokens:
            raise ValueError(f"min_tokens of coca is below max_tokens ({self.max_tokens}), not {self.min_tokens}")
        if self.generation == "beam" and self.count > self.beams:
            raise ValueError(f"{self.beams} beams give no {self.count} captions: raise beams, or generation=nucleus")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p of coca is above 0 and at most 1, not {self.top_p:g}")

    def setup(self, embedder: Embedder | None, device: str) -> None:
        assert embedder is not None
        encoder = embedder.encoder
        if encoder.backend != "open_clip":
            raise UsageError(f"{encoder.identity.name} writes no captions: coca needs a CoCa model", _HOW)
        import torch
        from open_clip.tokenizer import SimpleTokenizer

        from clipkit.methods.captioners.generation import Decoder, Limits
        from clipkit.models.open_clip import OpenClipEncoder

        assert isinstance(encoder, OpenClipEncoder)
        model = encoder.module()
        if not hasattr(model, "text_decoder") or not hasattr(model, "_encode_image"):
            raise UsageError(f"{encoder.identity.name} writes no captions: it has no text decoder", _HOW)
        first = encoder.tokenize(["a"])[0].tolist()
        if first[0] != _START or _END not in first:
            raise ClipkitError(f"{encoder.identity.name} has another tokenizer than CLIP's", _HOW)
        if self.max_tokens > encoder.context_length:
            raise UsageError(f"max_tokens of coca is {encoder.context_length} at most with {encoder.identity.name}")
        dtype = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[encoder.precision]
        self._embedder, self._tokenizer = embedder, SimpleTokenizer()
        self.batch_size, self.lanes = encoder.batch_size, encoder.lanes
        limits = Limits(_START, _END, self.min_tokens, self.max_tokens)
        self._decoder = Decoder(model, limits, device=encoder.device, dtype=dtype, batch=self.batch_size)

    @property
    def identity(self) -> str:
        return str(self._embedder.encoder.identity)

    def begin(self, request: Request) -> Any:
        from clipkit.images.decode import decode

        assert request.data is not None
        return request.name, self._embedder.encoder.preprocess(decode(request.data()))

    def finish(self, begun: list[Any]) -> list[Written | RecordError]:
        images = np.stack([image for _, image in begun])
        names = [name for name, _ in begun]
        if self.generation == "beam":
            found = [some[: self.count] for some in self._decoder.beams(images, self.beams)]
        else:
            draws = [[partial(self._draw, name, number) for name in names] for number in range(self.count)]
            drawn = [self._decoder.nucleus(images, some, self.top_p, self.temperature) for some in draws]
            found = [list(some) for some in zip(*drawn, strict=True)]
        return [self._written(some) for some in found]

    def _draw(self, name: str, number: int, step: int) -> float:
        return share(name, self.seed, f"coca/{number}/{step}")

    def _written(self, found: list[list[int]]) -> Written | RecordError:
        seed = self.seed if self.generation == "nucleus" else None
        texts = dict.fromkeys(text for tokens in found if (text := self._text(tokens)))
        if not texts:
            return RecordError("empty-answer", "the model wrote no word")
        return Written([Caption(text, self.name, self.identity, seed) for text in texts])

    def _text(self, tokens: list[int]) -> str:
        said: str = self._tokenizer.decode(tokens)
        return " ".join(f" {said} ".partition(" . ")[0].split())
