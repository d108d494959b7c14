"""A deduper: the key that stands for a record, and which keys mean the same."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from clipkit.errors import RecordError
from clipkit.stream.record import Record, image_of

if TYPE_CHECKING:
    from PIL import Image

    from clipkit.features.vectors import Vectors
    from clipkit.images.opener import Opener

Pairs = Iterator[tuple[np.ndarray, np.ndarray]]

_HEX = re.compile("[0-9a-fA-F]*")
_MAKERS = ("hash", "scan")  # whose digests of an image are taken as they stand


class Look:
    """One record while its keys are made: its image is opened once and decoded once, where a key needs that."""

    def __init__(self, record: Record, opener: Opener | None) -> None:
        self.record = record
        self._opener = opener

    @cached_property
    def data(self) -> bytes:
        """The encoded image. Raises RecordError."""
        assert self._opener is not None
        return self._opener.read(image_of(self.record))

    @cached_property
    def picture(self) -> Image.Image:
        """The upright RGB picture, decoded exactly. Raises RecordError."""
        from clipkit.images.decode import decode

        return decode(self.data)

    def made(self, field: str, digits: int) -> bytes | None:
        """A digest in hex that clipkit itself wrote into the record earlier, as `via` says, else None."""
        value, via = self.record.get(field), self.record.get("via")
        maker = via.get(field) if isinstance(via, dict) else None
        if not isinstance(value, str) or maker not in _MAKERS:
            return None
        return bytes.fromhex(value) if len(value) == digits and _HEX.fullmatch(value) else None


class Links:
    """Which of n items are linked by one method.

    Items with one key are of one class, and linked; classes may be linked too (`near`). classes: int64 [n], from 0; -1:
    has no key and is linked to nothing. count: how many classes there are.
    """

    def __init__(self, classes: np.ndarray, count: int) -> None:
        self.classes, self.count = classes, count

    def near(self, some: np.ndarray, others: np.ndarray) -> Pairs:
        """Pairs of different linked classes, one of them in `some`, one in `others`; a pair may come twice.

        some, others: bool [count]. Yields int64 [m] and int64 [m], of a pair in either order, in pieces.
        """
        return iter(())


class Deduper:
    """One way to say that two records are the same.

    options: JSON, what the user said; a deduper reads those it knows. Construction is cheap; it checks them and raises
    UsageError.

    needs: the field of the record it looks at, for messages. width: bytes of a key. opens: it may open the image.
    encodes: its key is made of the image's features.
    """

    name: ClassVar[str] = ""
    needs: ClassVar[str] = "image"
    width: ClassVar[int] = 16
    opens: ClassVar[bool] = False
    encodes: ClassVar[bool] = False

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    @property
    def limit(self) -> Any:
        """What decides, for the `limit` of a dropped record; None where keys must be equal."""
        return None

    def key(self, look: Look) -> bytes | None:
        """The key of a record, `width` bytes; b"" where it has none (an empty caption), None where a field is missing.

        Runs in several threads. Raises RecordError.
        """
        raise NotImplementedError

    def links(self, keys: np.ndarray, present: np.ndarray, vectors: Vectors | None) -> Links:
        """What the keys of all items say of them.

        keys: uint8 [n, width]; present: bool [n], where there is one. vectors: unit features by item, for those that
        encode.
        """
        classes, representatives = equal(keys, present)
        return Links(classes, len(representatives))


def digest(text: str) -> bytes:
    """16 bytes that stand for a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def equal(keys: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes of equal keys, in the order of the keys, and one item of each.

    keys: uint8 [n, w], w a multiple of 8; present: bool [n]. Returns int64 [n] (-1 where absent) and int64 [classes].
    """
    classes = np.full(len(keys), -1)
    items = np.flatnonzero(present)
    words = np.ascontiguousarray(keys[items]).view(">u8").reshape(len(items), keys.shape[1] // 8)
    order = np.lexsort(words.T[::-1])
    ordered = words[order]
    new = np.ones(len(items), bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    classes[items[order]] = np.cumsum(new) - 1
    return classes, items[order[new]]


def text_field(record: Record, name: str) -> str | None:
    """A field that is a string, or None where it is absent. Raises RecordError (`bad-field`)."""
    value = record.get(name)
    if value is not None and not isinstance(value, str):
        raise RecordError("bad-field", f"field {name!r} is not a string")
    return value
