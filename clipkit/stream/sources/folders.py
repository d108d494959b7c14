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
UNFINISHED = (".part", ".journal", ".lock")  # what a run with `-o FILE` keeps beside FILE
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_list_of_raw = msgspec.json.Decoder(list[msgspec.Raw] | None)


def is_image_name(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def looks_like_image(head: bytes) -> bool:
    """True if the first 16 bytes are those of a format that clipkit may decode."""
    return (
        head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*"))
        or (head[:2] == b"BM" and head[6:10] == bytes(4))  # its reserved bytes: text may start with BM, too
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
    _note_outside(reading)


def _note_outside(reading: Reading) -> None:
    if reading.outside:
        reading.note(f"{reading.input.shown}: left out {reading.outside} captions and fields that lie outside the root")


def read_folder(reading: Reading) -> Iterator[Item]:
    """One record an image file below a folder, in the order of the paths' names; ids are relative to the folder.

    Hidden files are left out, linked folders are followed once. Only one level's names are held in memory.
    """
    top = reading.input.path
    base = reading.places.reference_to(top)
    skipped: Counter[str] = Counter()
    for found in _walk(top):
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
    _note_outside(reading)
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


@dataclass(slots=True)
class _Below:
    relative: str


def _walk(top: str) -> Iterator[_Found | _Unreadable]:
    """Files below `top`, each folder's names sorted, however deep they lie."""
    inside: set[tuple[int, int]] = set()
    levels = [_level(top, "", inside)]
    while levels:
        found = next(levels[-1], None)
        if found is None:
            levels.pop()
        elif isinstance(found, _Below):
            levels.append(_level(top, found.relative, inside))
        else:
            yield found


def _level(top: str, relative: str, inside: set[tuple[int, int]]) -> Iterator[_Found | _Unreadable | _Below]:
    """The files and folders of top/relative; `inside`: the folders we are in, against link loops."""
    folder = os.path.join(top, relative) if relative else top
    try:
        status = os.stat(folder)
        here = (status.st_dev, status.st_ino)
        if here in inside:
            return
        files, folders = _list(folder)
    except OSError as error:
        message = f"the folder cannot be read: {error.strerror}"
        if not relative:
            raise ClipkitError(message, where=top) from None
        yield _Unreadable(relative, message)
        return
    inside.add(here)
    beside = {name for name in files if name.lower().endswith(_SIDECARS)}
    stems = {os.path.splitext(name)[0] for name in files if is_image_name(name)} if beside else set()
    for name in sorted([*files, *folders], key=lambda name: (nfc(name), name)):
        if name in folders:
            yield _Below(f"{relative}/{name}" if relative else name)
            continue
        stem, suffix = os.path.splitext(name)
        if name in beside and stem in stems:
            continue
        image = is_image_name(name) or (not suffix and _sniff(os.path.join(folder, name)))
        if not image and (suffix in UNFINISHED or any(name + ending in files for ending in UNFINISHED)):
            continue  # an output of ours
        yield _Found(relative, name, image, tuple(s for s in _SIDECARS if stem + s in beside) if beside else ())
    inside.discard(here)


def _list(folder: str) -> tuple[set[str], set[str]]:
    """Names of the regular files and of the folders in a folder, hidden ones left out, links followed."""
    files: set[str] = set()
    folders: set[str] = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.add(entry.name)
            elif entry.is_file() or is_image_name(entry.name):  # a fifo or dead link so named: an error, later
                files.add(entry.name)
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
        text = _read_sidecar(reading, stem + ".txt") if ".txt" in present else None
        json = _read_sidecar(reading, stem + ".json") if ".json" in present else None
        return reading.made(merge_fields(reading, fields, json=json, text=text), where=path)
    except RecordError as error:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        return reading.bad(error.kind, error.message, error.hint, text=os.fsencode(path), where=shown)


def merge_fields(
    reading: Reading, fields: dict[str, object], *, json: bytes | None, text: bytes | None
) -> dict[str, object]:
    """Fields of an image with those of its json (whose `id`, `uid` or `key` wins) and its caption.

    Where json and caption tell different texts, the caption is the one in use and `texts` holds both. Raises
    RecordError (`bad-sidecar`) for json that is no object and for text that is not UTF-8, and as `renamed` does.
    """
    try:
        own = _object.decode(json.removeprefix(b"\xef\xbb\xbf")) if json is not None else {}
        own = reading.renamed(own)
        named = any(_is_name(msgspec.json.decode(own[name])) for name in ("id", "uid", "key") if name in own)
        caption = text.decode("utf-8-sig").strip() if text is not None else None
        texts = _both(own, caption) if caption is not None and "text" in own else None
    except UnicodeDecodeError as error:
        raise RecordError("bad-sidecar", f"the text beside it is not UTF-8 (byte {error.start})") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise RecordError("bad-sidecar", f"the .json beside it: {error}") from None
    merged = {name: value for name, value in fields.items() if name != "id" or not named}
    merged.update((name, value) for name, value in own.items() if name not in merged)
    if caption is not None and not _same_text(own, caption):
        merged["text"] = caption
    if texts is not None:
        merged["texts"] = texts
    return merged


def _both(own: dict[str, msgspec.Raw], caption: str) -> list[object] | None:
    """All captions where the json has another than the one beside it; None where it has not."""
    old = msgspec.json.decode(own["text"])
    if old is None or _same_text(own, caption):
        return None
    texts = _list_of_raw.decode(own["texts"]) if "texts" in own else None
    known = [msgspec.json.decode(entry) for entry in texts or ()]
    have = [entry.get("text") if isinstance(entry, dict) else entry for entry in known]
    added = [{"text": one, "source": source} for one, source in ((old, "json"), (caption, "txt")) if one not in have]
    return [*(texts or ()), *added]


def _same_text(own: dict[str, msgspec.Raw], caption: str) -> bool:
    """Whether the json tells the caption beside it, too, but for blanks around it; then its own spelling stays."""
    text = msgspec.json.decode(own["text"]) if "text" in own else None
    return isinstance(text, str) and text.strip() == caption


def _is_name(value: object) -> bool:
    """Whether a record may be called by this value (as `Record.id` sees it)."""
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""


def _read_sidecar(reading: Reading, path: str) -> bytes | None:
    """A caption or a json beside an image; None, and counted, where `confine` refuses it."""
    found = reading.places.confined(path) if reading.options.confine else path
    if found is None:
        reading.outside += 1
        return None
    try:
        with open(found, "rb") as file:
            data = file.read(MAX_SIDECAR + 1)
    except OSError as error:
        raise RecordError("bad-sidecar", f"{os.path.basename(path)} cannot be read: {error.strerror}") from None
    if len(data) > MAX_SIDECAR:
        raise RecordError("bad-sidecar", f"{os.path.basename(path)} is larger than {MAX_SIDECAR >> 20} MiB")
    return data
