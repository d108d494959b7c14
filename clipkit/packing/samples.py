"""What of a record goes into a pack: its fields, its caption, and where the bytes of its image are."""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from clipkit.errors import ClipkitError, RecordError
from clipkit.images.formats import READ_HERE, SUFFIXES, describe, sniff
from clipkit.images.opener import Opener
from clipkit.references import is_local, shown, split_member
from clipkit.stream.record import Record

# What the stage says of a record's image to the sink: {"format", "bytes", "digest"}. The sink takes it out again.
NOTE: Final = "clipkit.pack"
MOST_COPIES: Final = 10_000
_HEAD: Final = 1024  # bytes that `sniff` needs
_HELD_BYTES: Final = 128 << 20


class Sample(msgspec.Struct, array_like=True, frozen=True):
    """One record of a pack.

    json: its fields, without `image` where the bytes themselves are packed. text: its caption, None where it is no
    string. image: the reference its bytes came from, or None. suffix, size, digest: of those bytes.
    """

    id: str
    json: bytes
    text: str | None = None
    image: str | None = None
    suffix: str = ""
    size: int = 0
    digest: str = ""

    @property
    def caption(self) -> bytes | None:
        """The caption as a file that gives it back: a reader takes one byte order mark away."""
        if self.text is None:
            return None
        return (("\ufeff" if self.text.startswith("\ufeff") else "") + self.text).encode()


@dataclass(frozen=True, slots=True)
class Found:
    """An image that may be packed, and its bytes."""

    data: bytes
    suffix: str
    digest: str

    def note(self) -> dict[str, Any]:
        return {"format": self.suffix, "bytes": len(self.data), "digest": self.digest}


class Images:
    """The images of a run: read and checked by worker threads, handed to the one thread that writes.

    Bytes wait here between the two, at most 128 MiB of them; what is not here any more is read again, and must be what
    it was. Thread-safe.

    absent: samples that had no image, as the writing thread counts them.
    """

    def __init__(self, opener: Opener, root: str | None = None) -> None:
        """root: as the opener has it."""
        self.absent = 0
        self._opener = opener
        self._root = os.path.abspath(root or ".")
        self._held: dict[str, bytes] = {}
        self._size = 0
        self._last = ("", b"")  # what was taken last: copies follow each other
        self._lock = threading.Lock()

    def read(self, reference: str) -> Found:
        """Open an image. Raises RecordError as `Opener.read` does, and `image-format` for what is no image."""
        data = self._opener.read(reference)
        kind = sniff(data[:_HEAD])
        if kind is None:
            raise RecordError(
                "image-format", f"not an image that is read here: it looks like {describe(data)}", READ_HERE
            )
        return Found(data, SUFFIXES[kind], _digest(data))

    def stamp(self, reference: str) -> str:
        """As `Opener.stamp`."""
        return self._opener.stamp(reference)

    def path(self, reference: str) -> str | None:
        """The file that a reference names, or the tar that it is in; None for what is no file."""
        return os.path.join(self._root, split_member(reference, self._root)[0]) if is_local(reference) else None

    def hold(self, found: Found) -> None:
        """Keep bytes for `take`, if there is room."""
        with self._lock:
            if found.digest not in self._held and self._size + len(found.data) <= _HELD_BYTES:
                self._held[found.digest] = found.data
                self._size += len(found.data)

    def forget(self, sample: Sample) -> None:
        """Nobody will take these bytes."""
        with self._lock:
            self._size -= len(self._held.pop(sample.digest, b""))

    def take(self, sample: Sample) -> bytes:
        """The bytes of a sample's image. Raises ClipkitError if they changed since it was read first."""
        if sample.digest == self._last[0]:
            return self._last[1]
        with self._lock:
            data = self._held.pop(sample.digest, None)
            self._size -= len(data or b"")
        if data is None:
            data = self._again(sample)
        self._last = sample.digest, data
        return data

    def _again(self, sample: Sample) -> bytes:
        assert sample.image is not None
        try:
            data = self._opener.read(sample.image)
        except RecordError as error:
            raise ClipkitError(f"{error.message}; a moment ago it was there", error.hint) from None
        if _digest(data) != sample.digest:
            raise ClipkitError(
                f"{shown(sample.image)} changed while it was packed", "--resume goes on with it as it is"
            )
        return data


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def marked(record: Record) -> bool:
    """Whether a verb that was run with `--mark` would have dropped a record. Raises RecordError."""
    return record.get("drop") is not None


def copies_of(record: Record) -> int:
    """How often a record is packed: its field `n`, else once. Raises RecordError (`bad-field`)."""
    count = record.get("n")
    if count is None:
        return 1
    if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MOST_COPIES:
        raise RecordError(
            "bad-field",
            f"field 'n' says how often a record is packed: a whole number up to {MOST_COPIES:,}, not {count!r}",
            "if yours means something else, rename it: clipkit set --rename NEW=n",
        )
    return count


def samples_of(line: bytes, *, with_images: bool) -> list[Sample]:
    """The samples that a line of the stage stands for: one, or one a copy.

    Copies of a record `ID` are called `ID-0`, `ID-1`, ... as DataComp's resharder calls them, and say `n` 1, so that a
    pack that is packed again keeps its size.
    """
    record = Record.parse(line)
    note: dict[str, Any] = {}
    image, text, name = record.get("image"), record.get("text"), record.id or ""
    if NOTE in record:
        note = record[NOTE]
        del record[NOTE]
    if with_images and "image" in record:
        del record["image"]
    what = {
        "text": text if isinstance(text, str) else None,
        "image": image if note else None,
        "suffix": note.get("format", ""),
        "size": note.get("bytes", 0),
        "digest": note.get("digest", ""),
    }
    count = copies_of(record)
    if count == 1:
        return [Sample(name, record.encode(), **what)]
    record["n"] = 1
    samples = []
    for number in range(count):
        record["id"] = f"{name}-{number}"
        samples.append(Sample(record["id"], record.encode(), **what))
    return samples
