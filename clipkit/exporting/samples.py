"""Real pictures and texts to hold an export to: the user's, or views of the three photos that the package carries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Samples:
    """pictures: upright RGB, of any size. texts: captions, or labels put into a template. name: for the report."""

    pictures: Sequence[Image.Image]
    texts: Sequence[str]
    name: str
