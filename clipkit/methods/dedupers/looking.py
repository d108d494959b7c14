"""Looking at records: what they are compared by, made with one opening and one decode of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clipkit.errors import RecordError
from clipkit.methods.dedupers.base import Deduper, Look
from clipkit.stream.fieldnames import mapping_hint
from clipkit.stream.record import Record

if TYPE_CHECKING:
    from clipkit.features.embedder import Embedder, ImageItem
    from clipkit.images.opener import Opener


@dataclass(slots=True)
class Seen:
    """A record that was looked at.

    keys: of each method, b"" where it has none, and for those that encode. image: ready for the model, where one of
    the methods encodes and there is an image.
    """

    keys: list[bytes]
    image: ImageItem | None


class Looking:
    """How records are looked at for some methods.

    embedder: where one of them encodes. stored: it has a feature store, so that no image is needed for the features.
    """

    def __init__(
        self, methods: Sequence[Deduper], opener: Opener | None, embedder: Embedder | None, *, stored: bool = False
    ) -> None:
        self.methods, self.opener = methods, opener
        self._embedder, self._stored = embedder, stored

    def see(self, look: Look) -> Seen:
        """Look at one record; for worker threads.

        Raises RecordError: `missing-field` for one that none of the methods can compare, and what the opener raises.
        """
        keys = [b"" if method.encodes else method.key(look) for method in self.methods]
        image = self._image(look)
        if image is None and not any(
            key is not None for key, method in zip(keys, self.methods, strict=True) if not method.encodes
        ):
            needed = list(dict.fromkeys(method.needs for method in self.methods))
            said = f"no field {' or '.join(needed)} to compare it by"
            raise RecordError("missing-field", said, mapping_hint(needed, look.record))
        return Seen([key or b"" for key in keys], image)

    def _image(self, look: Look) -> ImageItem | None:
        from clipkit.features.views import PLAIN

        if self._embedder is None:
            return None
        if self._stored:
            return self._embedder.prepare(look.record)
        if look.record.get("image") is None:
            return None
        return self._embedder.prepare_views(look.data, {"plain": PLAIN})["plain"]

    def features(self, seen: Sequence[Seen]) -> list[np.ndarray | RecordError | None]:
        """The unit features f32 [d] of each, None of one without an image; an error where they are not finite."""
        images = [one.image for one in seen if one.image is not None]
        rows = iter(self._embedder.encode(images).joint if self._embedder and images else ())
        return [_checked(next(rows)) if one.image is not None else None for one in seen]

    def stamp(self, record: Record) -> str:
        """As `Stage.stamp`: of the image, where one may be opened, and of the row in the feature store."""
        image = record.get("image")
        opens = not self._stored or any(method.opens for method in self.methods)
        opened = self.opener.stamp(image) if opens and self.opener and isinstance(image, str) else ""
        return opened + self._embedder.stamp(record) if self._embedder and self._stored else opened


def _checked(row: np.ndarray) -> np.ndarray | RecordError:
    if np.isfinite(row).all():
        return row
    return RecordError("not-finite", "the image's features are not finite")
