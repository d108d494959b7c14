"""What is wrong with a picture at first sight, by the definitions of cleanvision (cleanlab, 2022)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageFilter

from clipkit.images.decode import probe
from clipkit.methods.scorers.base import DATA, PIXELS, Sample, Scorer

_WEIGHTS = (0.241, 0.691, 0.068)  # of red, green and blue in perceived brightness
_LEVELS = 64 * 255  # steps of brightness in the histogram: grays are exact, others to 4e-5
_BAND = 1 << 18  # pixels looked at together, so that memory doesn't grow with the picture
_SMALL = 64  # longest side in pixels for blur
_GRAY = frozenset({"1", "L", "LA", "La", "I", "F"})


class Quality(Scorer):
    """Six scores from 0, bad, to 1, good; cleanvision's own to 1e-4 for upright RGB and gray files without alpha.

    Where cleanvision sees an issue, as an expression for `filter --where`:
        scores.dark < 0.32              the 99th percentile of brightness, sqrt(.241 R^2 + .691 G^2 + .068 B^2) / 255
        scores.light < 0.05             1 - the 5th percentile
        scores.blurry < 0.29            how far edges vary, at 64 pixels, and how peaked the histogram of grays is
        scores.low_information < 0.3    entropy of the histogram of all bands, in tenths of a bit
        scores.odd_aspect_ratio < 0.35  the shorter side over the longer
        scores.grayscale == 0           whether the file holds colours

    Percentiles come from a histogram of 64 steps for each of 255 grays. What a gray file holds is measured in one
    band, as cleanvision does: the entropy of the same picture saved as RGB is log2(3) bits higher.
    Unlike cleanvision, which takes the numbers in the file as they are, this measures the picture that is shown:
    upright, alpha over white, palettes and CMYK as their colours, 16 bits scaled to 8; and a file with gray and
    alpha, 1 bit or 16 bits of gray is gray too. A broken image is a RecordError, where cleanvision gives NaN.
    """

    name: ClassVar[str] = "quality"
    needs: ClassVar[frozenset[str]] = frozenset({DATA, PIXELS})
    outputs: tuple[str, ...] = (
        "scores.dark",
        "scores.light",
        "scores.blurry",
        "scores.low_information",
        "scores.odd_aspect_ratio",
        "scores.grayscale",
    )

    def look(self, sample: Sample) -> dict[str, Any]:
        assert sample.data is not None and sample.pixels is not None
        mode = probe(sample.data).mode
        is_gray = mode in _GRAY or mode.startswith("I;")
        image = sample.pixels.getchannel(0) if is_gray else sample.pixels
        fifth, last = _brightness(image, (0.05, 0.99))
        measured = {
            "dark": last,
            "light": 1 - fifth,
            "blurry": _blurry(image),
            "low_information": min(0.1 * image.entropy(), 1.0),
            "odd_aspect_ratio": min(image.size) / max(image.size),
            "grayscale": 0.0 if is_gray else 1.0,
        }
        return {f"scores.{name}": round(value, 6) for name, value in measured.items()}

    def score(self, sample: Sample, looked: Any) -> dict[str, Any]:
        return dict(looked)


def _brightness(image: Image.Image, quantiles: tuple[float, ...]) -> list[float]:
    """Quantiles of the brightness of an L or RGB picture, between neighbours where they fall between two pixels."""
    if image.mode == "L":
        counts = np.array(image.histogram())
    else:
        counts = np.zeros(_LEVELS + 1, np.int64)
        rows = max(_BAND // image.width, 1)
        for top in range(0, image.height, rows):
            levels = _levels(np.asarray(image.crop((0, top, image.width, min(top + rows, image.height)))))
            counts += np.bincount(levels, minlength=_LEVELS + 1)
    return _quantiles(counts, quantiles)


def _levels(pixels: np.ndarray) -> np.ndarray:
    """u8 [h, w, 3] -> the step of brightness of each pixel, int32 [h * w]."""
    total = np.zeros(pixels.shape[:2], np.float32)
    for band, weight in enumerate(_WEIGHTS):  # by bands: three times as fast as by tables
        values = pixels[..., band].astype(np.float32)
        values *= values
        values *= np.float32(weight)
        total += values
    levels: np.ndarray = np.rint(np.sqrt(total, out=total) * np.float32(_LEVELS / 255)).astype(np.int32).ravel()
    return levels


def _quantiles(counts: np.ndarray, quantiles: tuple[float, ...]) -> list[float]:
    """Of values 0, 1, ..., n - 1, scaled to 0 to 1, that occur `counts` times [n]."""
    up_to = np.cumsum(counts)
    found = []
    for quantile in quantiles:
        place = quantile * (int(up_to[-1]) - 1)
        low, high = np.searchsorted(up_to, [math.floor(place), math.ceil(place)], side="right")
        found.append(float(low + (high - low) * (place % 1)) / (len(counts) - 1))
    return found


def _blurry(image: Image.Image) -> float:
    ratio = max(image.size) / _SMALL
    if ratio > 1:  # `//` of floats, and with it now and then a pixel less, is cleanvision's
        image = image.resize((max(int(image.width // ratio), 1), max(int(image.height // ratio), 1)))
    gray = image.convert("L")
    edges = float(np.std(np.asarray(gray.filter(ImageFilter.FIND_EDGES)), dtype=np.float64))
    peaks = 1 - math.exp(-0.01 * float(np.std(gray.histogram())))
    return min(1 - math.exp(-0.01 * edges) + (peaks if peaks > 0.18 else 0.0), 1.0)
