"""How alike an image and its caption are to the model: CLIPScore, plain and with the image mirrored."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from clipkit.methods.scorers.base import TEXT, Sample, Scorer


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of unit rows f32 [d], summed in float64 and without BLAS, whose order of adding depends on its threads."""
    return float(np.einsum("d,d->", a.astype(np.float64), b.astype(np.float64)))


class Similarity(Scorer):
    """The cosine of the caption and one view of the image; subclasses say which."""

    needs: ClassVar[frozenset[str]] = frozenset({TEXT})
    encodes_text: ClassVar[bool] = True

    def score(self, sample: Sample, looked: Any) -> dict[str, Any]:
        assert sample.text_features is not None
        return {self.outputs[0]: cosine(sample.features[self.views[0]], sample.text_features)}


class Clip(Similarity):
    """`scores.clip`, -1 to 1: the cosine of image and caption.

    CLIPScore (Hessel et al., 2021) is 2.5 times it, and 0 where that is negative; data sets give the cosine itself.
    """

    name: ClassVar[str] = "clip"
    views: ClassVar[tuple[str, ...]] = ("plain",)
    outputs: tuple[str, ...] = ("scores.clip",)


class ClipFlip(Similarity):
    """`scores.clip_flip`, -1 to 1: the cosine of the mirrored image and the caption.

    Mirrored words are hard to read, so that an image no longer resembles its caption by quoting it (Yu et al., "The
    Devil is in the Details: A Deep Dive into the Rabbit Hole of Data Filtering", 2023). The picture is mirrored as it
    is decoded, before it is resized.
    """

    name: ClassVar[str] = "clip-flip"
    views: ClassVar[tuple[str, ...]] = ("flip",)
    outputs: tuple[str, ...] = ("scores.clip_flip",)
