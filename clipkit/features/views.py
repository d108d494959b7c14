"""What a model may be shown of a picture besides the picture itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from PIL import Image

from clipkit.images.decode import REDUCED, Reduction


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


def edges(picture: Image.Image) -> tuple[float, float, float, float]:
    """Where the original's (left, top, right, bottom) lie in a picture, in its pixels (see `decode.Reduction`)."""
    reduction = picture.info.get(REDUCED)
    if isinstance(reduction, Reduction) and reduction.reduced == picture.size:
        return reduction.box
    return (0.0, 0.0, float(picture.width), float(picture.height))


def _itself(picture: Image.Image) -> Image.Image:
    return picture


PLAIN: Final = View("plain", _itself)
FLIP: Final = View("flip", mirror)
STANDARD: Final = {view.key: view for view in (PLAIN, FLIP)}
