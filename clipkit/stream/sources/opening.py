"""Bytes of a text input, unpacked as they are read: plain, gzip or zstandard, of one or many members."""

from __future__ import annotations

import zlib
from typing import Any, BinaryIO, Protocol

from clipkit.errors import ClipkitError, MissingPackage
from clipkit.stream.sources.context import Reading

CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_ZSTD_FEED = 2048  # compressed bytes given at a time: 128 KiB a 4-byte block at most, so 64 MiB come out at once


class Chunks(Protocol):
    """What a reader of lines needs: up to `size` bytes, as soon as there are any; b"" at the end."""

    def read1(self, size: int) -> bytes: ...


class _Counted:
    """Counts what is read of the file itself, for progress."""

    def __init__(self, stream: BinaryIO, reading: Reading) -> None:
        self._stream: Any = stream
        self._reading = reading

    def read1(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read1(size)
        self._reading.bytes_read += len(data)
        return data

    read = read1  # gzip asks for `read`; fewer bytes than asked for are fine with it

    def peek(self, size: int) -> bytes:
        data: bytes = self._stream.peek(size)
        return data


class _Zstd:
    """Frames of zstandard one after another; one without its end is an error (the library lets it pass)."""

    def __init__(self, stream: _Counted) -> None:
        try:
            import zstandard
        except ImportError:
            raise MissingPackage("zstandard", "reading .zst", "pip install zstandard") from None
        self._error = zstandard.ZstdError
        self._new = zstandard.ZstdDecompressor().decompressobj
        self._stream = stream
        self._frame: Any = None
        self._waiting = b""

    def read1(self, size: int) -> bytes:
        while True:
            if not self._waiting:
                self._waiting = self._stream.read1(size)
                if not self._waiting:
                    if self._frame is not None:
                        raise EOFError("its last frame is cut off")
                    return b""
            data = self._feed()
            if data:
                return data

    def _feed(self) -> bytes:
        piece, self._waiting = self._waiting[:_ZSTD_FEED], self._waiting[_ZSTD_FEED:]
        if self._frame is None:
            self._frame = self._new()
        try:
            data: bytes = self._frame.decompress(piece)
        except self._error as error:
            raise zlib.error(str(error)) from None
        if self._frame.eof:
            self._waiting = self._frame.unused_data + self._waiting
            self._frame = None
        return data


def open_chunks(stream: BinaryIO, reading: Reading) -> Chunks:
    """The unpacked bytes of a file, by what its first bytes are. `read1` raises ClipkitError on a torn archive."""
    counted = _Counted(stream, reading)
    head = counted.peek(4)
    if head.startswith(_GZIP):
        import gzip

        return _Guarded(gzip.GzipFile(fileobj=counted, mode="rb"), reading)  # type: ignore[call-overload]
    if head.startswith(_ZSTD):
        return _Guarded(_Zstd(counted), reading)
    return _Guarded(counted, reading)


class _Guarded:
    """Turns what can go wrong while reading into one message that names the file."""

    def __init__(self, stream: Chunks, reading: Reading) -> None:
        self._stream = stream
        self._shown = reading.input.shown

    def read1(self, size: int) -> bytes:
        try:
            return self._stream.read1(size)
        except EOFError:
            raise ClipkitError(
                "the compressed file ends too early", "it was cut off: what could be read was used", where=self._shown
            ) from None
        except zlib.error as error:
            raise ClipkitError(f"the compressed data is broken: {error}", where=self._shown) from None
        except OSError as error:
            if error.errno is None:  # gzip.BadGzipFile
                raise ClipkitError(f"the compressed data is broken: {error}", where=self._shown) from None
            raise ClipkitError(f"cannot be read: {error.strerror or error}", where=self._shown) from None
