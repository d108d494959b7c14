"""Where lines go: stdout, a file written beside and renamed, a table on a terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from clipkit.errors import ClipkitError, UsageError

_FRAME_RECORDS = 10_000  # compressed output: one frame per so many records, so that a reader can start anywhere


class Sink(Protocol):
    """What the runner writes to. `commit` makes the result appear under its name; `abort` leaves nothing there."""

    def write(self, line: bytes, origin: str) -> None:
        """Take one record (a line without its end) that came from the input file `origin`."""

    def flush(self) -> None:
        """Let a reader see what was written."""

    def commit(self) -> None:
        """All is written."""

    def abort(self) -> None:
        """The run stopped."""


class StdoutSink:
    """Records to standard output. A reader that went away shows as BrokenPipeError."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = stream or sys.stdout.buffer

    def write(self, line: bytes, origin: str) -> None:
        self._stream.write(line + b"\n")

    def flush(self) -> None:
        self._stream.flush()

    commit = flush

    def abort(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stream.flush()


class NoSink:
    """Nowhere: for a process that helps another, which writes what there is to write."""

    def write(self, line: bytes, origin: str) -> None: ...

    def flush(self) -> None: ...

    def commit(self) -> None: ...

    def abort(self) -> None: ...


class FileSink:
    """Records to FILE, written as FILE.part beside it and renamed; `.gz` and `.zst` by suffix.

    A file that cannot be renamed over (a pipe, a device) is written directly.
    """

    def __init__(self, path: str | Path) -> None:
        self._direct = os.path.exists(path) and not os.path.isfile(path)
        self.path = Path(path if self._direct else os.path.realpath(path))  # a pipe without a name has no real path
        self._part = self.path if self._direct else part_of(self.path)
        self._file = open(self._part, "wb")
        self._compress = _compressor(self.path.suffix)
        self._frame: Any = None
        self._in_frame = 0

    @property
    def framed(self) -> bool:
        """Whether records are counted into frames of compressed data."""
        return self._compress is not None

    def write(self, line: bytes, origin: str) -> None:
        data = line + b"\n"
        if self._compress:
            if self._frame is None:
                self._frame = self._compress()
            data = self._frame.compress(data)
            self._in_frame += 1
        self._file.write(data)
        if self._in_frame == _FRAME_RECORDS:
            self._end_frame()

    def _end_frame(self) -> None:
        if self._frame is not None:
            self._file.write(self._frame.flush())
        self._frame, self._in_frame = None, 0

    def flush(self) -> None:
        self._file.flush()

    def commit(self) -> None:
        self._end_frame()
        self._file.flush()
        if self._direct:
            self._file.close()
            return
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._part, self.path)

    def abort(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        if not self._direct:
            self._part.unlink(missing_ok=True)


def write_lines(sink: Sink, lines: Sequence[bytes], origin: str) -> None:
    """Write several records of one origin, at once where that makes no difference to the bytes."""
    if isinstance(sink, StdoutSink) or (isinstance(sink, FileSink) and not sink.framed):
        if lines:
            sink.write(b"\n".join(lines), origin)
    else:
        for line in lines:
            sink.write(line, origin)


def _compressor(suffix: str) -> Any:
    """A maker of frame compressors for a file name's suffix, or None. Frames carry no time, so bytes repeat."""
    if suffix == ".gz":
        return lambda: zlib.compressobj(6, zlib.DEFLATED, 31)
    if suffix == ".zst":
        import zstandard

        return lambda: zstandard.ZstdCompressor(level=3).compressobj()
    return None


def part_of(path: Path) -> Path:
    """The name that a file has until it is whole."""
    return path.with_name(path.name + ".part")


def regular(out: str | None) -> Path | None:
    """The file that -o makes, or None for stdout, a pipe or a device."""
    if out in (None, "-"):
        return None
    path = str(out)
    if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
        return None
    return Path(os.path.realpath(path))


def check_writable(path: str | Path, flag: str) -> None:
    """Raise UsageError before any work if FILE cannot be made, or is named for a format that is only read."""
    if Path(path).suffix in (".parquet", ".csv", ".tsv", ".tar"):
        raise UsageError(f"{flag} {path}: records are written as JSON lines", "name it .jsonl, .jsonl.gz or .jsonl.zst")
    folder = Path(os.path.realpath(path)).parent
    if os.path.isdir(path):
        raise UsageError(f"{flag} {path} is a folder", "name a file")
    if not folder.is_dir():
        raise UsageError(f"{flag} {path}: there is no folder {folder.name!r}", f"make it first: mkdir -p {folder}")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold `PATH.lock` while an output is being made. Raises ClipkitError naming the process that holds it.

    The lock is the kernel's (flock): one left behind by a killed process holds nobody up.
    """
    try:
        import fcntl
    except ImportError:  # Windows: no flock, and no second cron either
        yield
        return
    name = path.with_name(path.name + ".lock")
    while True:
        file = open(name, "a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            file.close()
            raise ClipkitError(
                f"another run (process {holder}) is writing {path.name}", "wait for it, or stop it"
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(name)):
                break
        file.close()  # its holder removed it as it ended: there is a new one to take
    try:
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
    finally:
        name.unlink(missing_ok=True)
        file.close()
