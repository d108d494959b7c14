"""Learned vectors in the place of a prompt's words, through the text tower of any open_clip model.

The vectors replace what the tower's token embedding gives at some places of a prompt; all that follows (positions,
masks, pooling, projection) is the tower's own, so that CLIP's, CoCa's, SigLIP's and Hugging Face's need no code here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from clipkit.errors import ClipkitError, UsageError
from clipkit.methods.adapters.towers import shortened
from clipkit.stream.engine import available_cores

if TYPE_CHECKING:
    from clipkit.models.open_clip import OpenClipEncoder

_AT_ONCE: Final = 128  # prompts: those of more classes are computed again in the backward pass, to bound memory
_WORD: Final = "x"  # stands in a prompt where a vector goes; a word that every tokenizer has as one token


class Prompts:
    """A prompt for each class, `x x x x cat.`, in which vectors take the place of the words `x`.

    names: of the classes. length: vectors in a prompt, or the text whose words they begin as: `initial` are the
    embeddings of these then, f32 [length, width]. middle: half of them stand before the name, half behind it.
    The model inside is a copy, frozen, on the encoder's device.
    Raises UsageError for a name that leaves the vectors no room, and for a text without words, or too long.
    """

    def __init__(
        self, encoder: OpenClipEncoder, names: Sequence[str], length: int | str, *, middle: bool = False
    ) -> None:
        self._model: Any = encoder.module().requires_grad_(False)
        del self._model.visual
        self._embedding = _embedding(self._model)
        first, special = _frame(encoder)
        self.initial: torch.Tensor | None = None
        if isinstance(length, str):
            self.initial = self._words(encoder, length, first, special)
            length = len(self.initial)
        self.length = length
        before = length // 2 if middle else length
        texts = [_text(name, before, length - before) for name in names]
        counts = encoder.count_tokens(texts)
        widths = _checked(encoder, names, counts, length, middle)
        places = [[first + at + (width if at >= before else 0) for at in range(length)] for width in widths]
        self._places = torch.tensor(places, device=encoder.device)
        self._tokens = shortened(self._model, encoder.tokenize(texts).to(encoder.device), max(counts))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._tokens.device

    @property
    def width(self) -> int:
        """Of a vector."""
        return int(self._embedding.embedding_dim)

    def __call__(self, context: torch.Tensor) -> torch.Tensor:
        """Unit text features f32 [C, D]. context: f32 [length, width], or [C, length, width] for vectors of each
        class's own; the gradient reaches it alone."""
        count = len(self._tokens)
        own = context.expand(count, -1, -1)
        spans = [slice(start, start + _AT_ONCE) for start in range(0, count, _AT_ONCE)]
        if len(spans) == 1 or not context.requires_grad:
            return torch.cat([self._some(own[span], span) for span in spans])
        return torch.cat([checkpoint(self._some, own[span], span, use_reentrant=False) for span in spans])

    def _some(self, context: torch.Tensor, span: slice) -> torch.Tensor:
        """Features of some of the classes; context: [c, length, width]."""
        places = self._places[span, :, None].expand(-1, -1, self.width)

        def insert(_: nn.Module, __: Any, embedded: torch.Tensor) -> torch.Tensor:
            return embedded.scatter(1, places, context.to(embedded.dtype))

        hook = self._embedding.register_forward_hook(insert)
        try:
            features = self._model.encode_text(self._tokens[span], normalize=False)
        finally:
            hook.remove()
        return functional.normalize(features.float(), dim=-1)

    def _words(self, encoder: OpenClipEncoder, text: str, first: int, special: int) -> torch.Tensor:
        """The embeddings of a text's words, f32 [n, width]."""
        count, most = encoder.count_tokens([text])[0] - special, encoder.context_length - special
        if not 0 < count <= most:
            raise UsageError(f"init is a text of 1 to {most} tokens, and {text!r} has {count}")
        ids = encoder.tokenize([text])[0, first : first + count]
        rows: torch.Tensor = self._embedding(ids.to(encoder.device)).float()
        return rows


@contextmanager
def all_cores() -> Iterator[None]:
    """Let torch use every core: an encoder holds it to one, since a stream runs one call for each core at once."""
    before = torch.get_num_threads()
    torch.set_num_threads(available_cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _text(name: str, before: int, behind: int) -> str:
    return " ".join([*[_WORD] * before, name, *[_WORD] * behind]) + "."


def _checked(
    encoder: OpenClipEncoder, names: Sequence[str], counts: Sequence[int], length: int, middle: bool
) -> list[int]:
    """The tokens of each name. counts: of the whole prompts.

    Raises where a prompt is too long, or a word that stands for a vector isn't one token.
    """
    special = _frame(encoder)[1]
    alone = [count - special for count in encoder.count_tokens(list(names))]
    if middle:
        one, stop = encoder.count_tokens([_WORD, f"{_WORD}."])
        expected = [width + stop - one for width in alone]
    else:  # a tokenizer may read a name and the full stop as one
        expected = [count - special for count in encoder.count_tokens([f"{name}." for name in names])]
    limit, model = encoder.context_length, encoder.identity.name
    for name, count, own in zip(names, counts, expected, strict=True):
        if count > limit:
            said = f"class {name!r} takes {count} tokens with {length} vectors, and {model} reads {limit}"
            raise UsageError(said, "take fewer vectors (length), or a shorter name")
        if count != special + length + own:
            raise ClipkitError(f"the tokenizer of {model} reads {name!r} otherwise in a prompt than alone")
    return alone


def _frame(encoder: OpenClipEncoder) -> tuple[int, int]:
    """Where the words of a text begin among its tokens, and how many tokens are not words."""
    one, other = encoder.tokenize([_WORD, "y"])
    return int((one != other).int().argmax()), encoder.count_tokens([_WORD])[0] - 1


def _embedding(model: Any) -> nn.Embedding:
    """The module that gives a text's tokens their vectors."""
    text = getattr(model, "text", model)
    if hasattr(text, "token_embedding"):
        found: nn.Embedding = text.token_embedding
        return found
    hugging_face: nn.Embedding = text.transformer.get_input_embeddings()
    return hugging_face
