"""COCO captions: one json with `images` and `annotations`, to one record an image."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec

from clipkit.errors import ClipkitError, RecordError
from clipkit.stream.sources.context import Item, Reading
from clipkit.stream.sources.opening import CHUNK, Chunks

MAX_JSON = 1 << 30  # bytes
_PACKED = 100  # times its packed size that a json may have
_HARMLESS = 64 << 20  # bytes that may have been packed in any way


class _Annotation(msgspec.Struct):
    image_id: int | str
    caption: str | None = None


class _Coco(msgspec.Struct):
    images: list[dict[str, msgspec.Raw]]
    annotations: list[_Annotation]


def read_coco(reading: Reading, chunks: Chunks) -> Iterator[Item]:
    """One record an image, in the file's order: its captions in `texts`, the first in `text`, COCO's own id as `id`.

    Captions of one image are scattered over the file, so it is read whole first. Images are looked for under the
    root, beside the json, and where COCO's own archives put them (`../val2017` for `captions_val2017.json`).
    """
    coco = _parse(reading, _read_all(reading, chunks))
    texts: dict[int | str, list[dict[str, str]]] = defaultdict(list)
    for annotation in coco.annotations:
        if annotation.caption is not None:
            texts[annotation.image_id].append({"text": annotation.caption.strip(), "source": "coco"})
    folder: str | None = None
    for image in coco.images:
        reading.number += 1
        try:
            fields = reading.renamed(image)
            own, name = _decoded(fields, "id"), _decoded(fields, "file_name")
            if not isinstance(own, int | str) or not isinstance(name, str):
                raise RecordError("missing-field", "an image without id or file_name")
            if folder is None:
                folder = _folder_of_images(reading, name)
            record = {**fields, "id": str(own), "image": _join(reading, folder, name)}
            if own in texts:
                captions = texts.pop(own)
                record["text"], record["texts"] = captions[0]["text"], captions
            yield reading.made(record)
        except RecordError as error:
            yield reading.bad(error.kind, error.message, error.hint, text=msgspec.json.encode(image))
    if texts:
        count = sum(map(len, texts.values()))
        reading.note(f"{reading.input.shown}: left out {count:,} captions of images that it doesn't list")


def _read_all(reading: Reading, chunks: Chunks) -> bytearray:
    """The whole text. Raises ClipkitError for one that is larger than any real one, or was packed to be so."""
    data = bytearray()
    while chunk := chunks.read1(CHUNK):
        data += chunk
        if len(data) > MAX_JSON:
            hint = "it is read whole: split it, or write one record a line"
            raise ClipkitError(f"a json of more than {MAX_JSON >> 20:,} MiB", hint, where=reading.input.shown)
        if len(data) > max(_HARMLESS, _PACKED * reading.bytes_read):
            hint = "text packs to a tenth: if you trust it, unpack it first"
            raise ClipkitError(f"it unpacks to over {_PACKED} times its size", hint, where=reading.input.shown)
    return data


def _parse(reading: Reading, data: bytearray) -> _Coco:
    shown = reading.input.shown
    try:
        return msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"), type=_Coco)
    except msgspec.ValidationError as error:
        raise ClipkitError(
            f"neither JSON Lines nor COCO captions: {error}",
            f"for records, one object a line: jq -c '.[]' {shown}",
            where=shown,
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ClipkitError(f"not JSON: {error}", where=shown) from None


def _decoded(fields: dict[str, Any], name: str) -> Any:
    return msgspec.json.decode(fields[name]) if name in fields else None


def _folder_of_images(reading: Reading, name: str) -> str:
    """The first folder that has the first image; the one of the json where none has it."""
    beside = os.path.dirname(reading.input.path)
    split = os.path.basename(reading.input.path).partition(".")[0].rpartition("_")[2]
    steps = ("", split, f"../{split}", f"../images/{split}", "images", "../images")
    for folder in (reading.places.root, *(os.path.join(beside, step) for step in steps)):
        if os.path.exists(os.path.join(folder, name)):
            return folder
    return beside


def _join(reading: Reading, folder: str, name: str) -> str:
    return name if folder == reading.places.root else reading.places.reference_to(os.path.join(folder, name))


def is_lines(head: bytes) -> bool:
    """True if the start of a `.json` (its first line, or 1 MiB) is a whole object that is no COCO file: JSON Lines."""
    first = head.removeprefix(b"\xef\xbb\xbf").lstrip().partition(b"\n")[0]
    try:
        fields = msgspec.json.decode(first, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return not ("images" in fields and "annotations" in fields)
