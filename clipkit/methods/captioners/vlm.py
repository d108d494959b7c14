"""Captions by a vision-language model behind a server: the picture is sent, as a recipe asks about it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import ClassVar

from PIL import Image

from clipkit.images.decode import REDUCED, Reduction, decode
from clipkit.methods.captioners.base import Request
from clipkit.methods.captioners.served import Served
from clipkit.methods.parameters import param

_QUALITY = 90  # of the JPEG


@dataclass(kw_only=True)
class Vlm(Served):
    """Sends the picture to an OpenAI-compatible server, with the text of a recipe (`describe` if none is named).

    Sent is a JPEG made anew: decoded under the limits, upright, at most `max_side` pixels long, without EXIF, profiles
    and whatever else a file may carry. The server decides what is written: the same seed gives the same captions only
    as far as it keeps to that; the journal keeps what it answered.
    """

    name: ClassVar[str] = "vlm"
    method = "vlm"
    default_recipe = "describe"

    max_side: int = param(768, said="Pixels of the longer side of the picture that is sent, at most.", low=16)

    def picture(self, request: Request) -> str:
        assert request.data is not None, "a captioner that needs images is given them"
        return data_url(request.data(), self.max_side)


def data_url(data: bytes, max_side: int) -> str:
    """An encoded picture as a `data:` URL of a JPEG whose longer side has at most `max_side` pixels. Raises
    RecordError, as `decode` does."""
    image = shrunk(decode(data, fit=max_side), max_side)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def shrunk(image: Image.Image, max_side: int) -> Image.Image:
    """The picture with a longer side of `max_side` pixels, or as it is where that is shorter."""
    reduction = image.info.get(REDUCED)
    size, box = (reduction.size, reduction.box) if isinstance(reduction, Reduction) else (image.size, None)
    scale = max_side / max(size)
    if scale >= 1:
        return image
    small = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    return image.resize(small, Image.Resampling.BICUBIC, box=box)
