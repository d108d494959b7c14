"""Texts to token ids with a tokenizer.json, without torch; and CLIP's own byte-pair encoding as such a file."""

from __future__ import annotations

import gzip
import html
import string
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from clipkit.errors import ClipkitError, MissingPackage
from clipkit.models import listing

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

Clean = Literal["lower", "whitespace", "canonicalize"]
START, END = "<|startoftext|>", "<|endoftext|>"
CLIP_CONTEXT = 77
_MERGES = 49152 - 256 - 2
# OpenAI's pattern (MIT). It was written for any case; the only letter that this adds after lowercasing is the long s.
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|(?i:'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


class TextTokenizer:
    """A tokenizer.json with the cleaning that goes before it and the padding that comes after.

    pad: the id that fills a row up. clean: `lower` (CLIP), `whitespace` or `canonicalize` (SigLIP), in open_clip's
    words. A text that is too long keeps its first tokens and its closing one.
    """

    def __init__(self, tokenizer: Tokenizer, context_length: int, *, pad: int = 0, clean: Clean = "lower") -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.context_length = context_length
        self.pad = pad
        self.clean = clean

    @classmethod
    def open(cls, path: Path, context_length: int, *, pad: int | str = 0, clean: Clean = "lower") -> TextTokenizer:
        """Read a tokenizer.json. pad: an id, or a token. Raises ClipkitError if it is none or lacks the token."""
        from tokenizers import Tokenizer

        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises bare exceptions
            raise ClipkitError(f"cannot read {path}: {error}") from None
        number = tokenizer.token_to_id(pad) if isinstance(pad, str) else pad
        if number is None:
            raise ClipkitError(f"{path} has no token {pad!r}")
        return cls(tokenizer, context_length, pad=number, clean=clean)

    def ids(self, text: str) -> list[int]:
        """All token ids of a text, specials included, before any cut."""
        ids: list[int] = self._tokenizer.encode(cleaned(text, self.clean)).ids
        return ids

    def count(self, text: str) -> int:
        """Tokens of a text, specials included, before any cut."""
        return len(self.ids(text))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Token ids, int64 [n, context_length]."""
        import numpy as np

        rows = np.full((len(texts), self.context_length), self.pad, dtype=np.int64)
        for row, text in zip(rows, texts, strict=True):
            ids = self.ids(text)
            if len(ids) > self.context_length:
                ids = [*ids[: self.context_length - 1], ids[-1]]
            row[: len(ids)] = ids
        return rows

    def save(self, path: Path) -> None:
        """Write the tokenizer.json (what an exported model carries)."""
        self._tokenizer.save(str(path))


def clip_tokenizer(context_length: int = CLIP_CONTEXT, clean: Clean = "lower") -> TextTokenizer:
    """The tokenizer of OpenAI's CLIP (Radford et al., 2021) and most models after it.

    The merges are read from the installed open_clip package without importing it. Token ids are those of the original,
    also for `<|startoftext|>` and `<|endoftext|>` spelled out in a text, which open_clip takes for plain text; letters
    that Unicode added lately may be told apart differently, as they are between versions of any regex library.
    """
    return TextTokenizer(_clip_pairs(), context_length, clean=clean)


@cache
def _clip_pairs() -> Tokenizer:
    """It never changes: one for all models of a process."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors

    path = listing.package("CLIP's tokenizer") / "bpe_simple_vocab_16e6.txt.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")[1 : _MERGES + 1]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge) for merge in merges), START, END]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
    )
    tokenizer.add_special_tokens([START, END])
    return tokenizer


def cleaned(text: str, clean: Clean) -> str:
    """A text as CLIP's training saw it: mojibake repaired, HTML entities resolved, runs of white space as one space.

    `lower` makes it lower case too; `canonicalize` also takes punctuation away (as big_vision does for SigLIP).
    """
    try:
        import ftfy
    except ImportError:
        raise MissingPackage("ftfy", "cleaning texts as CLIP does", "pip install ftfy") from None

    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    if clean == "canonicalize":
        text = text.replace("_", " ").translate(_NO_PUNCTUATION)
    text = " ".join(text.split())
    return text if clean == "whitespace" else text.lower()


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
