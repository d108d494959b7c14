"""Where images land: a file a URL, in subfolders, each under its name only when it is whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from clipkit.errors import ClipkitError, RecordError
from clipkit.fetching.ending import has_end
from clipkit.images.decode import Probe, probe
from clipkit.images.formats import READ_HERE, SUFFIXES, describe, sniff
from clipkit.images.limits import Limits
from clipkit.images.remote import said
from clipkit.tries import Failure

try:
    import fcntl
except ImportError:  # Windows has no such locks: nothing left by a killed run is cleared there
    fcntl = None  # type: ignore[assignment]

_HEAD = 1024  # bytes that tell every format
_IN_MEMORY = 1 << 20  # bytes of a download; what is larger goes to the disk as it comes
_UNFINISHED = ".unfinished"


@dataclass(frozen=True, slots=True)
class Saved:
    """An image in the folder. name: its path there, `/`-separated. sha256: of its bytes, hex. Pixels upright."""

    name: str
    bytes: int
    sha256: str
    width: int
    height: int


class Folder:
    """A folder of downloads, shared by threads and by other processes that fetch into it.

    A file's name is a digest of its URL, in one of 4,096 subfolders, with the suffix of its true format: nothing of a
    name comes from the network or from a record. What is unfinished lies in a hidden subfolder, which the next run
    clears when a run was killed.
    """

    def __init__(self, path: str | os.PathLike[str], limits: Limits = Limits()) -> None:
        self.path = Path(path)
        self.limits = limits
        self._lock = threading.Lock()
        self._one_large = threading.Lock()
        self._desk: _Desk | None = None

    def find(self, url: str) -> Path | None:
        """The file of a URL that was downloaded before."""
        stem = self.path / _stem(url)
        paths = (stem.with_suffix(f".{suffix}") for suffix in SUFFIXES.values())
        return next((path for path in paths if path.exists()), None) if stem.parent.is_dir() else None

    def measure(self, path: Path) -> Saved | None:
        """What is to be said of a file in the folder; None if it is no whole image, whoever put it there."""
        try:
            data = path.read_bytes()
            found = probe(data, self.limits)
        except (OSError, RecordError):
            return None
        if path.suffix != f".{SUFFIXES[found.format]}" or not has_end(data, found.format):
            return None
        name = path.relative_to(self.path).as_posix()
        return Saved(name, len(data), hashlib.sha256(data).hexdigest(), found.width, found.height)

    def arrival(self, url: str) -> Arrival:
        """A place for the bytes of a URL as they come."""
        return Arrival(self, url)

    def close(self) -> None:
        """Remove what is unfinished."""
        with self._lock:
            if self._desk:
                self._desk.close()
            self._desk = None

    def part(self, url: str) -> Path:
        """A new path for an unfinished file."""
        with self._lock:
            if self._desk is None:
                self.path.mkdir(parents=True, exist_ok=True)
                self._desk = _Desk(self.path / _UNFINISHED)
            return self._desk.path / f"{_digest(url)}.part"

    def keep(self, part: Path, url: str, format: str) -> str:
        """Give a whole file its name, which is returned."""
        target = (self.path / _stem(url)).with_suffix(f".{SUFFIXES[format]}")
        try:
            os.replace(part, target)
        except FileNotFoundError:  # the subfolder's first
            target.parent.mkdir(exist_ok=True)
            os.replace(part, target)
        return target.relative_to(self.path).as_posix()

    def inspect(self, data: bytes, url: str) -> Probe:
        """Format and size in pixels. Raises RecordError as `probe` does, and Failure `fetch-truncated`."""
        try:
            found = probe(data, self.limits)
        except RecordError as error:
            raise RecordError(error.kind, f"{said(url)}: {error.message}", error.hint) from None
        if not has_end(data, found.format):
            raise Failure("fetch-truncated", f"{said(url)}: the picture's end is missing", passing=True)
        return found


class Arrival:
    """The bytes of one download. `add` them, `spill` when `full`, and at the end `keep` or `discard`.

    `spill` and `keep` do what takes time and may run in another thread than the rest; `discard` may come at any moment.
    """

    def __init__(self, folder: Folder, url: str) -> None:
        self._folder, self._url = folder, url
        self._chunks: list[bytes] = []
        self._waiting = 0  # bytes in _chunks
        self._size = 0
        self._known = False  # to be an image
        self._digest = hashlib.sha256()
        self._part: Path | None = None
        self._file: BinaryIO | None = None
        self._over = False
        self._lock = threading.Lock()

    def add(self, chunk: bytes) -> None:
        """Take the next bytes. Raises Failure: `fetch-too-large`, `fetch-format`."""
        self._chunks.append(chunk)
        self._waiting += len(chunk)
        self._size += len(chunk)
        if self._size > self._folder.limits.max_bytes:
            raise too_large(self._url, self._folder.limits)
        if not self._known and self._size >= _HEAD:
            self._recognise()

    def _recognise(self) -> None:
        head = b"".join(self._chunks)[:_HEAD]
        if sniff(head) is None:
            message = f"{said(self._url)} is not an image: it looks like {describe(head)}"
            raise Failure("fetch-format", message, READ_HERE)
        self._known = True

    @property
    def full(self) -> bool:
        return self._waiting >= _IN_MEMORY

    def spill(self) -> None:
        """Write what came so far. Raises ClipkitError if the disk doesn't take it."""
        with self._lock, _writing(self._folder.path):
            if not self._over:
                self._write()

    def _write(self) -> None:
        data = b"".join(self._chunks)
        self._chunks, self._waiting = [], 0
        self._digest.update(data)
        if self._file is None:
            self._part = self._folder.part(self._url)
            self._file = open(self._part, "w+b")
        self._file.write(data)

    def keep(self) -> Saved:
        """All is there: check it and give it its name.

        Raises Failure (`fetch-empty`, `fetch-format`, `fetch-truncated`), RecordError as `probe` does, and ClipkitError
        about the disk.
        """
        with self._lock:
            if self._over:
                raise Failure("fetch-stopped", f"{said(self._url)}: stopped")
            if not self._size:
                raise Failure("fetch-empty", f"{said(self._url)}: 0 bytes came")
            if not self._known:
                self._recognise()
            if self._file is None:
                return self._keep(b"".join(self._chunks))
            with self._folder._one_large, _writing(self._folder.path):
                self._write()
                self._file.seek(0)
                return self._keep(self._file.read())

    def _keep(self, data: bytes) -> Saved:
        found = self._folder.inspect(data, self._url)
        with _writing(self._folder.path):
            if self._file is None:
                self._write()
            assert self._file is not None and self._part is not None
            self._file.close()
            name = self._folder.keep(self._part, self._url, found.format)
        self._over = True
        return Saved(name, self._size, self._digest.hexdigest(), found.width, found.height)

    def discard(self) -> None:
        """Leave nothing; does nothing after `keep`."""
        with self._lock:
            if self._over:
                return
            self._over = True
            self._chunks = []
            if self._file is not None and self._part is not None:
                self._file.close()
                self._part.unlink(missing_ok=True)


class _Desk:
    """A subfolder of one process's own, locked while it lives; those of processes that are gone are removed."""

    def __init__(self, room: Path) -> None:
        room.mkdir(exist_ok=True)
        for left in room.iterdir():
            _clear_if_left(left)
        while True:
            self.path = Path(tempfile.mkdtemp(dir=room))
            self._held = open(self.path / "lock", "w")
            if _try_lock(self._held) and (self.path / "lock").exists():
                break
            self._held.close()  # another process that started now took it for left

    def close(self) -> None:
        self._held.close()
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):  # others are at it
            self.path.parent.rmdir()


def _clear_if_left(desk: Path) -> None:
    with contextlib.suppress(OSError), open(desk / "lock") as file:
        if fcntl and _try_lock(file):
            shutil.rmtree(desk, ignore_errors=True)


def _try_lock(file: IO[str]) -> bool:
    with contextlib.suppress(OSError):
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """A disk that is full is not a record's fault."""
    try:
        yield
    except OSError as error:
        raise ClipkitError(f"cannot write into {folder}: {error.strerror or error}") from None


def too_large(url: str, limits: Limits) -> Failure:
    return Failure("fetch-too-large", f"{said(url)} is over the limit of {limits.max_bytes:,} bytes")


def _digest(url: str) -> str:
    return hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _stem(url: str) -> str:
    digest = _digest(url)
    return f"{digest[:3]}/{digest}"
