"""Hashes of a decoded picture: one that any changed pixel changes, two that small changes hardly touch."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

BITS = 64  # of phash and dhash

_SIDE, _KEPT = 32, 8
_BAND = 256  # rows digested at once: all of a large picture would be copied
_FREQUENCIES = np.arange(_KEPT)[:, None] * (2 * np.arange(_SIDE) + 1)
_COSINES = np.cos(_FREQUENCIES * (np.pi / (2 * _SIDE)))  # [8, 32]: the lowest rows of an unscaled DCT-II
_DECIMALS = 6  # far above the noise of float64 here (1e-10), far below the gaps between coefficients


def pixel_digest(image: Image.Image) -> str:
    """sha256 (64 hex digits) of the size and the pixels of an RGB picture, as `decode` gives it.

    Equal for two files that decode to the same picture: a PNG saved again, a JPEG with other metadata.
    """
    digest = hashlib.sha256(f"RGB {image.width}x{image.height}\n".encode())
    for top in range(0, image.height, _BAND):
        bottom = min(top + _BAND, image.height)
        digest.update(image.crop((0, top, image.width, bottom)).tobytes())
    return digest.hexdigest()


def phash(image: Image.Image) -> int:
    """The perceptual hash of an RGB picture, 64 bits: which low frequencies are at least their median.

    Shrunk to 32 x 32 (Lanczos), then gray, then the 8 x 8 lowest coefficients of its DCT-II; the median leaves out the
    first, which is the mean brightness. Row by row, the first bit is the highest. Equal to the PHash of imagededup
    (idealo, 2019), after Krawetz, "Looks Like It" (2011), on upright pictures without alpha. Coefficients are
    rounded to 6 decimals, so that those of flat or symmetric pictures are equal where they should be, on
    any machine; imagededup compares the noise of floating point there.
    """
    gray = np.asarray(_small_gray(image, (_SIDE, _SIDE)), np.float64)
    coefficients = np.round(4 * (_COSINES @ gray @ _COSINES.T), _DECIMALS).ravel()
    return _pack(coefficients >= np.median(coefficients[1:]))


def dhash(image: Image.Image) -> int:
    """The difference hash of an RGB picture, 64 bits: where it grows brighter from left to right.

    Shrunk to 9 x 8 (Lanczos), then gray; a bit is set where a pixel is brighter than the one left of it. Row by row,
    the first bit is the highest. Equal to the DHash of imagededup, after Krawetz, "Kind of Like That" (2013).
    """
    gray = np.asarray(_small_gray(image, (9, 8)))
    return _pack(gray[:, 1:] > gray[:, :-1])


def hamming(one: int, other: int) -> int:
    """In how many bits two hashes differ."""
    return (one ^ other).bit_count()


def to_hex(value: int) -> str:
    """A 64-bit hash as records hold it: 16 hex digits. `int(text, 16)` reads it."""
    return f"{value:016x}"


def _small_gray(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS).convert("L")


def _pack(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")
