"""Bytes to pixels: formats by content, limits before decoding, upright RGB, large JPEGs at reduced scale."""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from PIL import Image, _imaging

from clipkit.errors import RecordError
from clipkit.images.formats import READ_HERE, describe, sniff
from clipkit.images.limits import Limits as Limits
from clipkit.images.pixels import orientation, to_rgb, turn

# Pillow warns about odd metadata (the picture is decoded all the same) and about large sizes (`Limits` decides).
# Said once, for Pillow's own modules: changing filters around each call would not be thread-safe.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else its remarks go to stderr

REDUCED = "clipkit.reduced"  # the key of `image.info` that holds a `Reduction`

_SCALES = (8, 4, 2)
_MARGIN = 2.0  # see `_scale`
_MAX_SCANS = 100  # of a progressive JPEG; encoders write about ten
_START_OF_SCAN = b"\xff\xda"
_WEBP_COSTS = 2  # times as much memory as others: libwebp holds two canvases beside what it gives
_RLE_COSTS = 8  # times as much time: Pillow decodes run lengths of BMP in Python
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # TIFF tags
_LATE_EXIF = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")


@dataclass(frozen=True)
class Probe:
    """What a header says. format: as `formats.sniff`; width, height: pixels, after EXIF orientation.

    mode: how the file holds its pixels, as Pillow names it ("RGB", "L", "P", "I;16", ...).
    """

    format: str
    width: int
    height: int
    mode: str


@dataclass(frozen=True)
class Reduction:
    """How a picture decoded at reduced scale lies in the original, so that a resize can be exact to the sub-pixel.

    size: (width, height) of the original, upright. box: where the original's edges lie in the reduced picture
    (left, top, right, bottom); the last block of a JPEG is rarely full. reduced: size of the reduced picture, by
    which `transform` knows that nobody has cropped it since.
    """

    size: tuple[int, int]
    box: tuple[float, float, float, float]
    reduced: tuple[int, int]


def probe(data: bytes, limits: Limits = Limits()) -> Probe:
    """Format and upright size without decoding pixels.

    Raises RecordError: `image-empty`, `image-too-large`, `image-format`, `image-broken`, `image-too-many-pixels`.
    """
    kind = _checked_format(data, limits)
    with _errors(kind):
        image = _open(data, kind)
        _check_pixels(image, limits)
        width, height = image.size
        if _may_turn(image, data) and orientation(image) >= 5:
            width, height = height, width
        return Probe(kind, width, height, image.mode)


def decode(data: bytes, *, limits: Limits = Limits(), fit: int | None = None) -> Image.Image:
    """The picture as upright RGB: first frame, alpha over white, 16 bits scaled to 8.

    fit: the short side in pixels that the model will resize to. A JPEG that is much larger is then decoded at 1/2,
    1/4 or 1/8 of its scale (by its DCT), and `image.info[REDUCED]` says how the result lies in the original. None
    decodes exactly. Raises RecordError as `probe` does.
    """
    kind = _checked_format(data, limits)
    with _errors(kind):
        image = _open(data, kind)
        _check_pixels(image, limits)
        if kind == "JPEG":
            _check_scans(image, data)
        full = image.size
        scale = _scale(full, fit) if fit is not None and kind == "JPEG" else 1
        if scale > 1:
            image.draft(None, (full[0] // scale, full[1] // scale))
        image.load()
        turned = orientation(image) if _may_turn(image, data) else 1
        image = to_rgb(image)  # step by step: each lets go of the one before
        image = turn(image, turned)
        image.info = {REDUCED: _reduction(full, scale, image.size, turned)} if scale > 1 else {}
        return image


def reduces(data: bytes, size: tuple[int, int], fit: int | None) -> bool:
    """Whether `decode` would give an image of this size at reduced scale: if not, what `fit` is changes nothing."""
    return fit is not None and _scale(size, fit) > 1 and sniff(data[:1024]) == "JPEG"


def _checked_format(data: bytes, limits: Limits) -> str:
    if not data:
        raise RecordError("image-empty", "the image has 0 bytes")
    if len(data) > limits.max_bytes:
        raise too_large(len(data), limits)
    kind = sniff(data[:1024])
    if kind is None:
        raise RecordError("image-format", f"not an image that is read here: it looks like {describe(data)}", READ_HERE)
    return kind


def too_large(size: int, limits: Limits) -> RecordError:
    """The error for an encoded image of `size` bytes."""
    return RecordError("image-too-large", f"{size:,} bytes, over the limit of {limits.max_bytes:,}")


def _open(data: bytes, format: str) -> Image.Image:
    """A lazy image by exactly one decoder."""
    if format == "TIFF":
        _silence_libtiff()
    if format == "HEIF":
        return _open_heif(data)
    return Image.open(io.BytesIO(data), formats=[format])


@cache
def _silence_libtiff() -> None:
    """Keep libtiff from writing to stderr what Pillow raises anyway: hundreds of lines from one broken file."""
    with contextlib.suppress(OSError, AttributeError):  # a Pillow without libtiff, or with its symbols hidden
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


def _open_heif(data: bytes) -> Image.Image:
    try:
        import pillow_heif
    except ImportError:
        message = "HEIC is read with the package pillow-heif, which is not installed"
        raise RecordError("image-format", message, "pip install 'clipkit[heif]'") from None
    decoder: Any = pillow_heif.HeifImageFile  # built directly: its registration would change Pillow for the process
    image: Image.Image = decoder(io.BytesIO(data))
    return image


def _check_pixels(image: Image.Image, limits: Limits) -> None:
    sizes = [image.size]
    tags = getattr(image, "tag_v2", {})
    if _TILE_WIDTH in tags and _TILE_LENGTH in tags:  # libtiff decodes whole tiles, however small the picture
        sizes.append((tags[_TILE_WIDTH], tags[_TILE_LENGTH]))
    most = limits.max_pixels // _cost(image)
    for width, height in sizes:
        if width < 1 or height < 1:
            raise RecordError("image-broken", f"a size of {width}x{height} pixels")
        if width * height > most:
            message = f"{width}x{height} pixels, over the limit of {most:,} in all"
            raise RecordError("image-too-many-pixels", message)


def _cost(image: Image.Image) -> int:
    if image.format == "WEBP":
        return _WEBP_COSTS
    if image.format == "BMP" and image.info.get("compression") in (1, 2):
        return _RLE_COSTS
    return 1


def _check_scans(image: Image.Image, data: bytes) -> None:
    """Refuse a JPEG that repeats itself: every scan of 20 bytes costs a pass over all pixels.

    A first scan that holds all components of a baseline JPEG is the only one that is read.
    """
    first = data.rfind(_START_OF_SCAN, 0, image.fp.tell())  # type: ignore[attr-defined]
    single = first >= 0 and data[first + 4] == image.layers and not image.info.get("progressive")  # type: ignore[attr-defined]
    if not single and data.count(_START_OF_SCAN) > _MAX_SCANS:
        raise RecordError("image-broken", f"a JPEG of more than {_MAX_SCANS} scans")


def _may_turn(image: Image.Image, data: bytes) -> bool:
    """Whether an orientation is still to be looked for.

    Pillow turns TIFF by itself, libheif HEIC. Asking a PNG without EXIF would decode it all, in search of
    metadata behind the pixels: only where the bytes hold such a thing.
    """
    if image.format in ("TIFF", "HEIF"):
        return False
    if image.format == "PNG" and "exif" not in image.info:
        return any(name in data for name in _LATE_EXIF)
    return True


def _scale(size: tuple[int, int], fit: int) -> int:
    """By how much a JPEG may be reduced: the most that leaves the short side at least `_MARGIN` times `fit`.

    The DCT's low-pass then leaves alone what the resize keeps: see benchmarks/decode.py for cosines by margin.
    """
    return next((scale for scale in _SCALES if min(size) >= scale * _MARGIN * fit), 1)


def _reduction(full: tuple[int, int], scale: int, reduced: tuple[int, int], turned: int) -> Reduction:
    """Where the edges of the original are after reducing and turning (partial blocks lie right and bottom before)."""
    spans = [(0.0, full[0] / scale), (0.0, full[1] / scale)]
    if turned >= 5:
        spans.reverse()
        full = (full[1], full[0])
    flips = (turned in (2, 3, 6, 7), turned in (3, 4, 7, 8))
    spans = [
        (length - end, length - start) if flip else (start, end)
        for (start, end), length, flip in zip(spans, reduced, flips, strict=True)
    ]
    (left, right), (top, bottom) = spans
    return Reduction(full, (left, top, right, bottom), reduced)


_OBJECT = re.compile(r"(image file )?<[^<>]* at 0x[0-9A-Fa-f]+>")


@contextlib.contextmanager
def _errors(format: str) -> Iterator[None]:
    """Whatever a decoder raises, as a RecordError."""
    try:
        yield
    except RecordError:
        raise
    except Image.DecompressionBombError:
        raise RecordError(
            "image-too-many-pixels", f"cannot decode {format}: it has more pixels than Pillow allows"
        ) from None
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, RuntimeError, MemoryError, ...
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        detail = _OBJECT.sub("it", detail)  # an address: another one in every run
        raise RecordError("image-broken", f"cannot decode {format}: {detail}") from None
