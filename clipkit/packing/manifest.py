"""Which shards of a pack are whole, on disk: what a run that was stopped leaves for the next.

DIR/clipkit.json            format, kind, parameters, counts and, once all is there, the shards
DIR/clipkit.json.journal    while the pack is unfinished: its whole shards, one a line; of one name the last counts
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from clipkit import __version__
from clipkit.errors import UsageError
from clipkit.packing.layout import FORMATS, Layout
from clipkit.stream.sink import part_of

FORMAT: Final = 1
KIND: Final = "pack"
MANIFEST: Final = "clipkit.json"
_UNFINISHED: Final = "unfinished pack"
_PROGRESS: Final = "clipkit.json.journal"
_SUFFIXES: Final = frozenset(form.suffix for form in FORMATS.values())


class Shard(msgspec.Struct, frozen=True):
    """A whole shard. count: samples. size: its own, in bytes. digest: over what decides its bytes."""

    name: str
    count: int
    size: int
    first: str
    last: str
    digest: str


class _Manifest(msgspec.Struct, frozen=True):
    format: int
    kind: str
    parameters: dict[str, Any] = {}
    counts: dict[str, int] = {}
    shards: list[Shard] = []
    clipkit: str = __version__


class Manifest:
    """The manifest of the pack that is being made at FOLDER."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder, self._parameters = folder, layout.parameters()

    def begin(self, *, restart: bool) -> dict[str, Shard]:
        """Make the folder and say that its pack is unfinished; the shards that earlier runs finished, by name.

        What they did not finish goes, and with `restart` all of it.
        """
        self._folder.mkdir(exist_ok=True)
        known = _finished(self._folder)
        if restart:
            for name in known:
                remove(self._folder / name)
            known = {}
        self.remove_unfinished()
        self._replace(_PROGRESS, b"".join(map(_line, known.values())))
        self._write(_Manifest(FORMAT, _UNFINISHED, self._parameters))
        return known

    def note(self, shard: Shard) -> None:
        """A shard is whole."""
        with open(self._folder / _PROGRESS, "ab") as file:
            file.write(_line(shard))

    def forget(self, name: str) -> None:
        """A shard is about to be replaced: whatever happens next, it is not what it was."""
        self.note(Shard(name, 0, -1, "", "", ""))

    def finish(self, shards: Sequence[Shard], counts: Mapping[str, int]) -> None:
        """All shards are there."""
        self._write(_Manifest(FORMAT, KIND, self._parameters, dict(counts), list(shards)))
        (self._folder / _PROGRESS).unlink(missing_ok=True)

    def remove_unfinished(self) -> None:
        """Remove shards that are not whole."""
        for path in self._folder.glob("*.part"):
            if _is_shard(path.name.removesuffix(".part")):
                remove(path)

    def _write(self, manifest: _Manifest) -> None:
        self._replace(MANIFEST, msgspec.json.encode(manifest) + b"\n")

    def _replace(self, name: str, data: bytes) -> None:
        part = part_of(self._folder / name)
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, self._folder / name)


def check_target(folder: Path, layout: Layout, *, resume: bool, restart: bool) -> None:
    """Raise UsageError before any work if a pack cannot be made at FOLDER, or something else is in its way."""
    if not folder.parent.is_dir():
        raise UsageError(f"-o {folder}: there is no folder {folder.parent}", f"make it first: mkdir -p {folder.parent}")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {folder} is a file", "a pack is a folder: name a new one")
    if not folder.exists() or not any(folder.iterdir()):
        return
    manifest = _read(folder)
    if manifest is None or manifest.kind not in (KIND, _UNFINISHED):
        raise UsageError(f"-o {folder} is not empty, and no pack of clipkit's", "name a new folder")
    if manifest.format > FORMAT:
        raise UsageError(f"{folder} was written by a newer clipkit (format {manifest.format})", "upgrade clipkit")
    if restart:
        return
    if not resume:
        what = "a pack" if manifest.kind == KIND else "an unfinished pack"
        raise UsageError(f"-o {folder} holds {what} already", "--resume brings it up to date, --restart begins anew")
    if manifest.parameters != layout.parameters():
        was = ", ".join(f"{name} {value}" for name, value in manifest.parameters.items())
        raise UsageError(f"{folder} was packed otherwise: {was}", "repeat these, or --restart begins anew")


def size_of(path: Path) -> int | None:
    """The bytes of a file, or of all files in a folder; None for what isn't there."""
    try:
        if not path.is_dir():
            return path.stat().st_size
        return sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())
    except OSError:
        return None


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _read(folder: Path) -> _Manifest | None:
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=_Manifest)
    except (OSError, msgspec.DecodeError):
        return None


def _finished(folder: Path) -> dict[str, Shard]:
    """The shards that earlier runs finished: what the manifest says, then what was noted since."""
    manifest = _read(folder)
    found = {shard.name: shard for shard in (manifest.shards if manifest else [])}
    with contextlib.suppress(FileNotFoundError):
        for line in (folder / _PROGRESS).read_bytes().split(b"\n"):
            with contextlib.suppress(msgspec.DecodeError):  # a torn tail
                shard = msgspec.json.decode(line, type=Shard)
                found[shard.name] = shard
    return {name: shard for name, shard in found.items() if _is_shard(name)}


def _is_shard(name: str) -> bool:
    """Whether a name is one that we give: what a manifest names may be removed, and a manifest is a file like any."""
    stem, dot, suffix = name.partition(".")
    return len(stem) == 5 and stem.isascii() and stem.isdecimal() and dot + suffix in _SUFFIXES


def _line(shard: Shard) -> bytes:
    return msgspec.json.encode(shard) + b"\n"
