"""The pictures behind labelled samples, as a model takes them: for methods that train through it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from clipkit.errors import ClipkitError, RecordError
from clipkit.features.embedder import short_side
from clipkit.features.views import augmented
from clipkit.images.decode import decode
from clipkit.references import shown

if TYPE_CHECKING:
    from clipkit.images.opener import Opener
    from clipkit.models.base import Encoder


class ImagePictures:
    """Pictures that are opened and decoded each time one is asked for, so that memory doesn't grow with their number.

    references: of the images, as `Opener` reads them. names: of each, by which its views are drawn. scale: bounds of
    the area of a view's crop (0.08 to 1: torchvision's default, with which CoOp and CLIP-LoRA were trained).
    Its methods may be called from several threads.
    """

    def __init__(
        self,
        encoder: Encoder,
        opener: Opener,
        references: Sequence[str],
        names: Sequence[str],
        *,
        exact_decode: bool = False,
        seed: int = 0,
        scale: tuple[float, float] = (0.08, 1.0),
    ) -> None:
        if len(references) != len(names):
            raise ValueError(f"{len(references)} references and {len(names)} names")
        self._encoder, self._opener = encoder, opener
        self._references, self._names = references, names
        self._fit = None if exact_decode else short_side(encoder.identity.preprocess)
        self._seed, self._scale = seed, scale

    def __len__(self) -> int:
        return len(self._references)

    def pixels(self, row: int, view: int = 0) -> np.ndarray:
        """The model's input f32 [3, h, w]. view: 0 is what the image's features are computed from, bit for bit; any
        other number a random crop of its own (see `views.augmented`).

        Raises ClipkitError, which names the image, where it is missing, broken or refused.
        """
        reference = self._references[row]
        try:
            data = self._opener.read(reference)
            if not view:
                return self._encoder.preprocess(decode(data, fit=self._fit))
            size = self._encoder.identity.preprocess.size
            made = augmented(self._names[row], view, self._seed, size, self._scale)
            return self._encoder.preprocess(made.make(decode(data, fit=self._least(max(size)))))
        except RecordError as error:
            raise ClipkitError(error.message, error.hint, where=shown(reference)) from error

    def _least(self, side: int) -> int | None:
        """The short side that a decode at reduced scale must keep, so that the smallest crop is not enlarged by it."""
        return None if self._fit is None else math.ceil(side / math.sqrt(self._scale[0]))
