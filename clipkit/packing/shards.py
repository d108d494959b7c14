"""How one shard is written in each format, under a name of its own until it is whole."""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Protocol

import msgspec

from clipkit.packing.samples import Sample
from clipkit.stream.captions import is_negative
from clipkit.stream.record import Record, encode_json

_BUFFER = 1 << 20
_END = 2 * tarfile.BLOCKSIZE  # zeros; more of them fill the last record of a tar
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")


class Writer(Protocol):
    """One shard while it is made."""

    def add(self, key: str, sample: Sample, image: bytes | None) -> None:
        """Write a sample under its key."""

    def finish(self) -> None:
        """All is written: have it on disk."""

    def close(self) -> None:
        """Let go of files, finished or not."""


class Format:
    """What a kind of shard is called, what it holds, and how it is written."""

    suffix: ClassVar[str] = ""  # of a shard's name; "" for a folder
    with_images: ClassVar[bool] = True  # the bytes of images are in it
    without_image: ClassVar[bool] = True  # a record without an image has a place in it

    def see(self, record: Record) -> None:
        """Look at a record of the input; all are seen before the first shard is written."""

    @property
    def seed(self) -> str:
        """What besides its samples decides a shard's bytes."""
        return ""

    def weigh(self, sample: Sample) -> int:
        """The bytes that a sample takes in a shard, for `--max-size`."""
        return sum(len(data) for _, data in members(sample, None)) + sample.size

    def ended(self, weight: int) -> int:
        """The bytes of a whole shard whose samples weigh so much."""
        return weight

    def open(self, path: Path) -> Writer:
        """Begin a shard at `path`."""
        raise NotImplementedError


def members(sample: Sample, image: bytes | None) -> Iterator[tuple[str, bytes]]:
    """Suffix and content of the files that a sample is in webdataset's layout."""
    if image is not None:
        yield sample.suffix, image
    yield "json", sample.json
    caption = sample.caption
    if caption is not None:
        yield "txt", caption


class WebDataset(Format):
    """Tars of `KEY.jpg`, `KEY.json`, `KEY.txt`, as webdataset, img2dataset and open_clip read them."""

    suffix = ".tar"

    def weigh(self, sample: Sample) -> int:
        sizes = [len(data) for _, data in members(sample, None)] + ([sample.size] if sample.digest else [])
        return sum(tarfile.BLOCKSIZE + size + -size % tarfile.BLOCKSIZE for size in sizes)

    def ended(self, weight: int) -> int:
        return weight + _END + -(weight + _END) % tarfile.RECORDSIZE

    def open(self, path: Path) -> Writer:
        return _Tar(path)


class _Tar:
    """A ustar without times, owners or anything else of the day."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb", buffering=_BUFFER)

    def add(self, key: str, sample: Sample, image: bytes | None) -> None:
        for suffix, data in members(sample, image):
            info = tarfile.TarInfo(f"{key}.{suffix}")
            info.size, info.mode = len(data), 0o644
            self._file.write(info.tobuf(tarfile.USTAR_FORMAT))
            self._file.write(data)
            self._file.write(bytes(-len(data) % tarfile.BLOCKSIZE))

    def finish(self) -> None:
        self._file.write(bytes(_END))
        self._file.write(bytes(-self._file.tell() % tarfile.RECORDSIZE))
        sync(self._file)

    def close(self) -> None:
        self._file.close()


class Folder(Format):
    """Folders of images with a `.json` and a `.txt` beside each."""

    without_image = False

    def open(self, path: Path) -> Writer:
        return _Folder(path)


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir()

    def add(self, key: str, sample: Sample, image: bytes | None) -> None:
        for suffix, data in members(sample, image):
            (self._path / f"{key}.{suffix}").write_bytes(data)

    def finish(self) -> None:
        pass  # tens of thousands of files: the sizes in the manifest tell what a power cut took

    def close(self) -> None:
        pass


class Coco(Format):
    """Folders of `captions.json`, in COCO's form, and `images/`.

    An image's `id` is the record's: numbers where all ids of the shard are. Captions are those of `texts`, else `text`.
    """

    without_image = False

    def open(self, path: Path) -> Writer:
        return _Coco(path)


class _CocoImage(msgspec.Struct):
    id: str
    fields: bytes
    captions: list[str]


class _Coco:
    """Entries wait in memory, without the images: a shard's worth of fields."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._images: list[_CocoImage] = []
        (path / "images").mkdir(parents=True)

    def add(self, key: str, sample: Sample, image: bytes | None) -> None:
        record = Record.parse(sample.json)
        captions = [sample.text] if sample.text is not None else []
        texts = record.get("texts")
        if isinstance(texts, list):
            told = [
                entry.get("text") if isinstance(entry, dict) else entry for entry in texts if not is_negative(entry)
            ]
            captions = list(dict.fromkeys([*captions, *(text for text in told if isinstance(text, str))]))
        for name in ("id", "text", "texts"):
            if name in record:
                del record[name]
        name = f"{key}.{sample.suffix}"
        record["file_name"] = name
        (self._path / "images" / name).write_bytes(image or b"")
        self._images.append(_CocoImage(sample.id, record.encode(), captions))

    def finish(self) -> None:
        numbered = all(_NUMBER.fullmatch(image.id) for image in self._images)
        ids: list[int | str] = [int(image.id) if numbered else image.id for image in self._images]
        captions = ((own, text) for own, image in zip(ids, self._images, strict=True) for text in image.captions)
        with open(self._path / "captions.json", "wb", buffering=_BUFFER) as file:
            file.write(b'{"info":{},"licenses":[],"images":[')
            for number, (own, image) in enumerate(zip(ids, self._images, strict=True)):
                head = b'{"id":' + encode_json(own) + b","
                file.write((b"," if number else b"") + head + image.fields[1:])
            file.write(b'],"annotations":[')
            for number, (own, text) in enumerate(captions):
                annotation = {"id": number + 1, "image_id": own, "caption": text}
                file.write((b"," if number else b"") + encode_json(annotation))
            file.write(b"]}\n")
            sync(file)

    def close(self) -> None:
        self._images = []


def sync(file: object) -> None:
    """Have the disk hold what was written, so that a power cut cannot leave half of it under a final name."""
    file.flush()  # type: ignore[attr-defined]
    os.fsync(file.fileno())  # type: ignore[attr-defined]
