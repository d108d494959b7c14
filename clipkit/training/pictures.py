"""What a model sees of an example in an epoch: decoded in threads, cropped by hash, kept for later epochs."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Sequence

import numpy as np
from PIL import Image

from clipkit.features.embedder import short_side
from clipkit.features.views import augmented, mirror
from clipkit.images.decode import decode
from clipkit.images.transform import frame
from clipkit.models.base import Preprocess
from clipkit.stream.hashing import share
from clipkit.training.examples import Example, Examples
from clipkit.training.settings import Settings

_BYTES_A_PIXEL = 4  # in Pillow's memory


class Pictures:
    """The pictures of examples, for each of some models the same part of them.

    keep: bytes of decoded pictures that stay in memory, the first that come: an order that is another in each epoch
    leaves nothing to choose by. Thread-safe.
    """

    def __init__(
        self, examples: Examples, preprocesses: Sequence[Preprocess], settings: Settings, *, keep: int = 0
    ) -> None:
        self._examples, self._preprocesses, self._settings = examples, preprocesses, settings
        self._fit = max(short_side(one) for one in preprocesses)
        if settings.area < 1:  # else the smallest crop would be enlarged
            self._fit = math.ceil(self._fit / math.sqrt(settings.area))
        self._kept: dict[bytes, Image.Image] = {}
        self._keeps, self._room = keep > 0, keep
        self._lock = threading.Lock()

    def seen(self, example: Example, epoch: int) -> list[np.ndarray]:
        """uint8 [h, w, 3] for each model. Raises RecordError as `Examples.read` and `decode` do."""
        picture = self._picture(example)
        return [np.asarray(self._frame(one, picture, example.name, epoch)) for one in self._preprocesses]

    def _frame(self, preprocess: Preprocess, picture: Image.Image, name: str, epoch: int) -> Image.Image:
        settings = self._settings
        if settings.area < 1:
            area = settings.area, 1.0
            view = augmented(name, epoch + 1, settings.seed, preprocess.size, area, mirrors=settings.mirror)
            return view.make(picture)
        if settings.mirror and share(name, settings.seed, f"mirror/{epoch}") < 0.5:
            picture = mirror(picture)
        return frame(preprocess, picture)

    def _picture(self, example: Example) -> Image.Image:
        """The picture as it is, decoded once where there is room for it."""
        if not self._keeps:
            return decode(self._examples.read(example), fit=self._fit)
        image = example.image
        key = hashlib.blake2b(image if isinstance(image, bytes) else image.encode("utf-8", "surrogatepass")).digest()
        if (kept := self._kept.get(key)) is not None:
            return kept
        picture = decode(self._examples.read(example), fit=self._fit)
        size = picture.width * picture.height * _BYTES_A_PIXEL
        if size <= self._room:
            with self._lock:
                if size <= self._room and key not in self._kept:
                    self._kept[key] = picture
                    self._room -= size
        return picture


def cost(preprocesses: Sequence[Preprocess]) -> int:
    """Bytes of what `Pictures.seen` gives for one example."""
    return sum(3 * one.size[0] * one.size[1] for one in preprocesses)
