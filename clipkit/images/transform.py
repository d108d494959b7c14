"""Pixels to a model's input, equal to open_clip's own inference preprocessing, without torch.

The geometry is that of open_clip's `image_transform(is_train=False)` (Ilharco et al., OpenCLIP, 2021): Pillow's
antialiased resize, then a centre crop or padding, then (x / 255 - mean) / std in float32.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from clipkit.images.decode import REDUCED, Reduction
from clipkit.models.base import Preprocess

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_LONG = 64  # a resized picture of more crops than this is never made whole: a 1x60000 strip would take gigabytes

_Box = tuple[float, float, float, float]


def apply(preprocess: Preprocess, image: Image.Image) -> np.ndarray:
    """An upright RGB image to f32 [3, h, w], C-contiguous, normalised.

    Bit-equal to open_clip for images decoded exactly (save that strips longer than about 64:1 may differ by the
    rounding of a level or two). An image that `decode` reduced is resampled from where it lies in the original.
    """
    pixels = np.asarray(frame(preprocess, image))
    out = np.empty((3, *pixels.shape[:2]), np.float32)
    normalise(preprocess, pixels, out)
    return out


def frame(preprocess: Preprocess, image: Image.Image) -> Image.Image:
    """What a model sees of an upright RGB image, resized: `apply` without the arithmetic."""
    height, width = preprocess.size
    reduction = _reduction(image)
    full = reduction.size if reduction else image.size
    box = reduction.box if reduction else (0.0, 0.0, float(image.width), float(image.height))
    resized, resample = _resized(preprocess, *full)
    if reduction is None and resized[0] * resized[1] <= _LONG * width * height:
        if resized != image.size:
            image = image.resize(resized, resample)
    else:
        image = _window(image, box, resized, width, height, resample)
    return _centre(image, width, height, _padding(preprocess))


def enlarges(preprocess: Preprocess, width: int, height: int) -> bool:
    """Whether nothing of a picture of this size is lost when it is resized, only cropped."""
    resized, _ = _resized(preprocess, width, height)
    return resized[0] >= width and resized[1] >= height


def fit(preprocess: Preprocess) -> int:
    """What to give `decode` as `fit`: the short side that `apply` will resize to, or somewhat more."""
    return preprocess.resize or max(preprocess.size)


def _reduction(image: Image.Image) -> Reduction | None:
    reduction = image.info.get(REDUCED)
    return reduction if isinstance(reduction, Reduction) and reduction.reduced == image.size else None


def _padding(preprocess: Preprocess) -> int:
    return preprocess.fill if preprocess.resize_mode == "longest" else 0  # open_clip's centre crop pads with black


def _resized(preprocess: Preprocess, width: int, height: int) -> tuple[tuple[int, int], Image.Resampling]:
    """The (width, height) that the whole picture is resized to, before the centre is taken, and the filter."""
    target_height, target_width = preprocess.size
    resample = _FILTERS[preprocess.interpolation]
    mode = preprocess.resize_mode
    if mode == "squash":
        return (target_width, target_height), resample
    if mode == "shortest" and (preprocess.resize or target_height == target_width):
        short = preprocess.resize or target_width
        if width <= height:
            return (short, int(short * height / width)), resample
        return (int(short * width / height), short), resample
    ratios = (height / target_height, width / target_width)
    if mode == "shortest":  # not square: here open_clip does not pass the interpolation on
        ratio, resample = min(ratios), Image.Resampling.BICUBIC
    elif mode == "longest":
        ratio = max(ratios)
    else:
        raise ValueError(f"unknown resize mode {mode!r}")
    return (max(1, round(width / ratio)), max(1, round(height / ratio))), resample


def _centre(image: Image.Image, width: int, height: int, fill: int) -> Image.Image:
    """The centre of the image, padded where it is smaller than the crop."""
    left, top = _offset(image.width, width), _offset(image.height, height)
    if image.width < width or image.height < height:
        canvas = Image.new("RGB", (max(width, image.width), max(height, image.height)), (fill, fill, fill))
        canvas.paste(image, (max(0, -left), max(0, -top)))
        image, left, top = canvas, max(0, left), max(0, top)
    if image.size == (width, height):
        return image
    return image.crop((left, top, left + width, top + height))


def _offset(length: int, crop: int) -> int:
    """Where a centred crop begins, as torchvision rounds it; negative: by how much to pad before."""
    return round((length - crop) / 2.0) if length >= crop else -((crop - length) // 2)


def _window(
    image: Image.Image, box: _Box, resized: tuple[int, int], width: int, height: int, resample: Image.Resampling
) -> Image.Image:
    """The centre, at most width x height, of `box` resized to `resized`: only these pixels are computed."""
    spans = []
    for low, high, length, crop in (
        (box[0], box[2], resized[0], width),
        (box[1], box[3], resized[1], height),
    ):
        first, kept = max(0, _offset(length, crop)), min(length, crop)
        step = (high - low) / length
        spans.append((low + first * step, low + (first + kept) * step, kept))
    (left, right, kept_width), (top, bottom, kept_height) = spans
    right, bottom = min(right, float(image.width)), min(bottom, float(image.height))
    return image.resize((kept_width, kept_height), resample, box=(left, top, right, bottom))


def normalise(preprocess: Preprocess, pixels: np.ndarray, out: np.ndarray) -> None:
    """uint8 [h, w, 3], as `frame` gives it, to a model's input in `out`, f32 [3, h, w].

    Three passes over floats beat a look-up of each level by a third, and round as torchvision does.
    """
    out[...] = pixels.transpose(2, 0, 1)
    out /= np.float32(255)
    out -= np.asarray(preprocess.mean, np.float32)[:, None, None]
    out /= np.asarray(preprocess.std, np.float32)[:, None, None]
