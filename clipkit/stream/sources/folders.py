"""Image files, and folders of them with captions beside."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from clipkit.errors import ClipkitError, RecordError
from clipkit.stream.sources.context import MAX_SIDECAR, Item, Reading
from clipkit.stream.sources.places import nfc

_PHOTOS = (".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".avifs", ".heic", ".heif", ".hif")
IMAGE_SUFFIXES = frozenset((*_PHOTOS, ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff"))
_SIDECARS = (".txt", ".json")
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def is_image_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def looks_like_image(head: bytes) -> bool:
    """True if the first 16 bytes are those of a format that clipkit may decode."""
    return (
        head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*"))
        or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")
        or (head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"hevc"))
    )


def read_image_file(reading: Reading) -> Iterator[Item]:
    """The one record of an image that was named itself; nothing is opened here."""
    path = reading.input.path
    reading.number = 1
    reference = reading.places.reference_to(path)
    fields: dict[str, object] = {"id": reading.places.id_of_path(os.path.abspath(path)), "image": reference}
    yield _with_sidecars(reading, path, fields, present=None)


def read_folder(reading: Reading) -> Iterator[Item]:
    """One record an image file below a folder, in the order of the paths' names; ids are relative to the folder.

    Hidden files are left out, linked folders are followed once. Only one level's names are held in memory.
    """
    top = reading.input.path
    base = reading.places.reference_to(top)
    skipped: Counter[str] = Counter()
    for found in _walk(top, "", ()):
        if isinstance(found, _Unreadable):
            reading.number += 1
            yield reading.bad("unreadable-folder", found.message, where=os.path.join(top, found.relative))
            continue
        folder, names = found.relative, found.name
        path = os.path.join(top, folder, names) if folder else os.path.join(top, names)
        if not found.image:
            skipped[os.path.splitext(names)[1].lower() or names] += 1
            continue
        reading.number += 1
        relative = f"{folder}/{names}" if folder else names
        reference = relative if base == "." else f"{base.rstrip('/')}/{relative}"
        yield _with_sidecars(reading, path, {"id": nfc(relative), "image": reference}, found.sidecars)
    if skipped:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in skipped.most_common(5))
        reading.note(f"{top}: left out what is no image: {kinds}")
    if skipped[".tar"] and not reading.number:
        reading.note(f"{top}: to read the shards in it, name them: {os.path.join(top, '*.tar')}")


@dataclass(slots=True)
class _Found:
    relative: str  # of the folder, `/`-separated, "" for the top
    name: str
    image: bool
    sidecars: tuple[str, ...]


@dataclass(slots=True)
class _Unreadable:
    relative: str
    message: str


def _walk(top: str, relative: str, above: tuple[tuple[int, int], ...]) -> Iterator[_Found | _Unreadable]:
    """Files below top/relative, each folder's names sorted; `above`: the folders we are in, against link loops."""
    folder = os.path.join(top, relative) if relative else top
    try:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in above:
            return
        files, folders = _list(folder)
    except OSError as error:
        message = f"the folder cannot be read: {error.strerror}"
        if not relative:
            raise ClipkitError(message, where=top) from None
        yield _Unreadable(relative, message)
        return
    beside = {name for name in files if name.lower().endswith(_SIDECARS)}
    stems = {os.path.splitext(name)[0] for name in files if is_image_name(name)} if beside else set()
    for name in sorted([*files, *folders], key=lambda name: (nfc(name), name)):
        if name in folders:
            yield from _walk(top, f"{relative}/{name}" if relative else name, (*above, here))
            continue
        stem, suffix = os.path.splitext(name)
        if name in beside and stem in stems:
            continue
        image = is_image_name(name) or (not suffix and _sniff(os.path.join(folder, name)))
        yield _Found(relative, name, image, tuple(s for s in _SIDECARS if stem + s in beside) if beside else ())


def _list(folder: str) -> tuple[list[str], set[str]]:
    """Names of the regular files and of the folders in a folder, hidden ones left out, links followed."""
    files: list[str] = []
    folders: set[str] = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.add(entry.name)
            elif entry.is_file() or is_image_name(entry.name):  # a fifo or dead link so named: an error, later
                files.append(entry.name)
    return files, folders


def _sniff(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return looks_like_image(file.read(16))
    except OSError:
        return False


def _with_sidecars(reading: Reading, path: str, fields: dict[str, object], present: tuple[str, ...] | None) -> Item:
    """The record of an image file with the `.json` fields and the `.txt` caption of the same stem."""
    stem = os.path.splitext(path)[0]
    if present is None:
        present = tuple(s for s in _SIDECARS if os.path.isfile(stem + s))
    try:
        text = _read_bounded(stem + ".txt") if ".txt" in present else None
        json = _read_bounded(stem + ".json") if ".json" in present else None
        return reading.made(merge_fields(fields, json=json, text=text, renames=reading.renames), where=path)
    except RecordError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        return reading.bad(error.kind, error.message, error.hint, text=os.fsencode(path), where=shown)


def merge_fields(
    fields: dict[str, object], *, json: bytes | None, text: bytes | None, renames: dict[str, str]
) -> dict[str, object]:
    """Fields of an image with those of its json (whose `id`, `uid` or `key` wins) and its caption.

    Raises RecordError (`bad-sidecar`) for json that is no object and for text that is not UTF-8.
    """
    try:
        own = _object.decode(json.removeprefix(b"\xef\xbb\xbf")) if json is not None else {}
        named = any(_is_name(msgspec.json.decode(own[name])) for name in ("id", "uid", "key") if name in own)
        caption = text.decode("utf-8-sig").strip() if text is not None else None
    except UnicodeDecodeError as error:
        raise RecordError("bad-sidecar", f"the text beside it is not UTF-8 (byte {error.start})") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise RecordError("bad-sidecar", f"the .json beside it: {error}") from None
    own = {renames.get(name, name): value for name, value in own.items()}
    merged = {name: value for name, value in fields.items() if name != "id" or not named}
    merged.update((name, value) for name, value in own.items() if name not in merged)
    if caption is not None:
        merged["text"] = caption
    return merged


def _is_name(value: object) -> bool:
    """Whether a record may be called by this value (as `Record.id` sees it)."""
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""


def _read_bounded(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_SIDECAR + 1)
    except OSError as error:
        raise RecordError("bad-sidecar", f"{os.path.basename(path)} cannot be read: {error.strerror}") from None
    if len(data) > MAX_SIDECAR:
        raise RecordError("bad-sidecar", f"{os.path.basename(path)} is larger than {MAX_SIDECAR >> 20} MiB")
    return data
