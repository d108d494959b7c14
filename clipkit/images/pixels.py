"""Whatever mode a decoder gives, as upright RGB: alpha over white, 16 bits scaled to 8."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS_PER_SAMPLE = 258  # a TIFF tag
_BAND = 64  # rows scaled at once: a large picture in float64 would be eight times its size


def orientation(image: Image.Image) -> int:
    """The EXIF (or XMP) orientation, 1 to 8; 1 where there is none, or none that can be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # Pillow's EXIF parser raises a dozen types; broken EXIF says nothing about the pixels
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def turn(image: Image.Image, orientation: int) -> Image.Image:
    """The image as EXIF orientation 1 to 8 wants it shown."""
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image of any mode as RGB. Colours are converted as Pillow does it, without colour profiles."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = _to_8bit(image)
    if image.has_transparency_data:
        return _over_white(image if image.mode == "RGBA" else image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image)
    return white


def _to_8bit(image: Image.Image) -> Image.Image:
    """Grey of 16-bit, 32-bit or float samples to L, or to LA where one value is declared transparent."""
    black, white = _range(image)
    transparent = image.info.get("transparency")
    grey = np.empty((image.height, image.width), np.uint8)
    alpha = np.empty_like(grey) if isinstance(transparent, int) else None
    for top, band in _bands(image):
        rows = slice(top, top + len(band))
        scaled = (band.astype(np.float64) - black) * 255.0 / (white - black)
        grey[rows] = np.rint(np.clip(np.nan_to_num(scaled, copy=False, nan=0.0), 0, 255))
        if alpha is not None:
            alpha[rows] = np.where(band == transparent, 0, 255)
    result = Image.fromarray(grey)
    if alpha is not None:
        result.putalpha(Image.fromarray(alpha))
    return result


def _bands(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """(top row, values) of some rows after others: a large picture as one array would take gigabytes."""
    for top in range(0, image.height, _BAND):
        yield top, np.asarray(image.crop((0, top, image.width, min(top + _BAND, image.height))))


def _range(image: Image.Image) -> tuple[float, float]:
    """The values that mean black and white.

    16-bit samples: 0 and 65535, or less where a TIFF says that fewer bits are used. 32-bit and float samples declare
    no range: 0 and the smallest usual white that is not exceeded (1 for floats, 255, 65535), else what is there.
    """
    if image.mode.startswith("I;"):
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0]
        return 0.0, float(2 ** min(int(bits), 16) - 1)
    low, high = np.inf, -np.inf
    for _, band in _bands(image):
        finite = band[np.isfinite(band)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    usual = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    if low >= 0 and high <= usual[-1]:
        return 0.0, next(white for white in usual if high <= white)
    return (low, high) if low < high else (low - 255.0, low)
