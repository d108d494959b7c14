"""Whatever mode a decoder gives, as upright RGB: alpha over white, 16 bits scaled to 8."""

from __future__ import annotations

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
        return _over_white(image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.getchannel("A"))
    return white


def _to_8bit(image: Image.Image) -> Image.Image:
    """Grey of 16-bit, 32-bit or float samples to L, or to LA where one value is declared transparent."""
    values = np.asarray(image)
    white = _white(image, values)
    if white is None:
        finite = np.isfinite(values)
        low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 1.0)
        values = np.where(finite, values, low) - low
        white = float(high - low) or 1.0
    scaled = np.clip(values, 0, white) * np.float32(255.0 / white)
    grey = Image.fromarray(np.rint(scaled, out=scaled).astype(np.uint8))
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(np.asarray(image) == transparent, 0, 255).astype(np.uint8)))
    return grey


def _white(image: Image.Image, values: np.ndarray) -> float | None:
    """The value that means white; None where the file doesn't say: then what is there spans black to white.

    16-bit samples: 65535, or less where a TIFF says that fewer bits are used. 32-bit and float samples declare no
    range: the smallest usual one that holds them all (1 for floats, 255, 65535).
    """
    if image.mode.startswith("I;"):
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0]
        return float(2 ** min(int(bits), 16) - 1)
    low, high = values.min(), values.max()
    if not (low >= 0 and np.isfinite(high)):
        return None
    usual = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    return next((white for white in usual if high <= white), None)
