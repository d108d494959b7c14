"""What a model may be shown of a picture besides the picture itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from PIL import Image

from clipkit.images.decode import REDUCED, Reduction
from clipkit.stream.hashing import share_of, ticket

_RATIOS: Final = (3 / 4, 4 / 3)  # of a crop's width to its height, as torchvision has them
_DIGITS: Final = 6  # of what is drawn: the key says all of it


@dataclass(frozen=True, slots=True)
class View:
    """A picture made from a picture. Two views with one key show the same of the same picture.

    key: part of the feature cache's key ("plain", "flip", "masked/3f9a..."): it covers all that decides the result.
    make: the upright RGB picture, perhaps decoded at reduced scale, to another one, which is preprocessed.
    """

    key: str
    make: Callable[[Image.Image], Image.Image]


def mirror(picture: Image.Image) -> Image.Image:
    """Left and right exchanged, before any resizing; also of a picture that was decoded at reduced scale."""
    flipped = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    reduction = picture.info.get(REDUCED)
    flipped.info = {}
    if isinstance(reduction, Reduction):
        left, top, right, bottom = reduction.box
        width = picture.width
        flipped.info[REDUCED] = replace(reduction, box=(width - right, top, width - left, bottom))
    return flipped


@dataclass(frozen=True, slots=True)
class Crop:
    """A part of any picture, and whether it is mirrored.

    area: of the picture's area. ratio: of width to height, in pixels. x, y: where in the room that is left it lies,
    0 (left, top) to 1. What would reach over an edge keeps its area and takes the nearest ratio that fits; it gives up
    area only where no ratio of 3/4 to 4/3 fits, in long pictures.
    """

    area: float
    ratio: float
    x: float
    y: float
    mirrored: bool

    @classmethod
    def drawn(cls, name: str | bytes, number: int, seed: int, scale: tuple[float, float]) -> Crop:
        """That of a picture's name, by hash: area uniform in `scale`, ratio log-uniform in 3/4 .. 4/3, mirrored or not.

        torchvision's RandomResizedCrop draws up to ten times until a crop fits, which makes large ones rarer; here one
        draw always fits (see `box`), so that a few numbers say which it was.
        """
        area, ratio, x, y, mirrored = (
            share_of(ticket(name, seed, f"view/{number}/{what}")) for what in ("area", "ratio", "x", "y", "mirror")
        )
        low, high = (math.log(bound) for bound in _RATIOS)
        return cls(
            round(scale[0] + area * (scale[1] - scale[0]), _DIGITS),
            round(math.exp(low + ratio * (high - low)), _DIGITS),
            round(x, _DIGITS),
            round(y, _DIGITS),
            mirrored < 0.5,
        )

    def box(self, width: float, height: float) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of the part in a picture of this size."""
        shape = width / height
        ratio = min(max(self.ratio, shape * self.area), shape / self.area)
        ratio = min(max(ratio, _RATIOS[0]), _RATIOS[1])
        high = min(math.sqrt(self.area * width * height / ratio), height, width / ratio)
        wide = min(high * ratio, width)
        left, top = self.x * (width - wide), self.y * (height - high)
        return left, top, min(left + wide, width), min(top + high, height)


def augmented(
    name: str | bytes,
    number: int,
    seed: int,
    size: tuple[int, int],
    scale: tuple[float, float] = (0.5, 1.0),
    *,
    mirrors: bool = True,
) -> View:
    """A random crop, mirrored or not, resized to a model's input: what few-shot methods train on besides the picture.

    name: of the picture, its id. number: 1, 2, ... of its views. size: (height, width) in pixels that the model takes,
    so that its preprocessing only normalises. scale: bounds of the crop's area, as a part of the picture's. mirrors:
    whether half of them are mirrored; nothing else about a crop changes with it.
    The same arguments give the same view, in any run.
    """
    crop = Crop.drawn(name, number, seed, scale)
    if not mirrors:
        crop = replace(crop, mirrored=False)
    height, width = size

    def make(picture: Image.Image) -> Image.Image:
        full, (left, top, right, bottom) = full_size(picture), edges(picture)
        across, down = (right - left) / full[0], (bottom - top) / full[1]  # 1, or 1/2, 1/4, 1/8 as it was decoded
        box = crop.box(*full)
        inside = (
            left + box[0] * across,
            top + box[1] * down,
            min(left + box[2] * across, picture.width),  # rounding must not put it over the edge: Pillow refuses that
            min(top + box[3] * down, picture.height),
        )
        made = picture.resize((width, height), Image.Resampling.BICUBIC, box=inside)
        made.info = {}
        return made.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if crop.mirrored else made

    mirrored = "/mirrored" if crop.mirrored else ""
    said = "/".join(f"{value:.{_DIGITS}f}" for value in (crop.area, crop.ratio, crop.x, crop.y))
    return View(f"crop/{said}{mirrored}/{width}x{height}", make)


def edges(picture: Image.Image) -> tuple[float, float, float, float]:
    """Where the original's (left, top, right, bottom) lie in a picture, in its pixels (see `decode.Reduction`)."""
    reduction = picture.info.get(REDUCED)
    if isinstance(reduction, Reduction) and reduction.reduced == picture.size:
        return reduction.box
    return (0.0, 0.0, float(picture.width), float(picture.height))


def full_size(picture: Image.Image) -> tuple[int, int]:
    """(width, height) of the original."""
    reduction = picture.info.get(REDUCED)
    if isinstance(reduction, Reduction) and reduction.reduced == picture.size:
        return reduction.size
    return picture.size


def _itself(picture: Image.Image) -> Image.Image:
    return picture


PLAIN: Final = View("plain", _itself)
FLIP: Final = View("flip", mirror)
STANDARD: Final = {view.key: view for view in (PLAIN, FLIP)}
