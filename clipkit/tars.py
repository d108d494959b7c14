"""Tar files of strangers: their headers, one after the other, in bounded memory."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO

MAX_HEADER = 4 << 20  # bytes; real ones (long names, pax fields) take hundreds

# What tarfile raises for a tar that is broken or made to harm.
BROKEN = (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError, MemoryError)


class _Headers:
    """The file that tarfile reads headers from. A header may claim any length, and tarfile would ask for as much."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek = file.seek
        self.tell = file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header that claims {size:,} bytes")
        return self._file.read(size)


def members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The headers of a plain tar, none kept. Raises one of BROKEN, or OSError; also for what follows the last header
    and is no end: tarfile alone takes any broken header but the first for one."""
    shard = tarfile.TarFile(fileobj=_Headers(file))  # type: ignore[arg-type]
    last = -1
    while (member := shard.next()) is not None:
        if member.offset <= last or member.size < 0:
            raise tarfile.ReadError("headers out of order")
        last = member.offset
        shard.members = []  # type: ignore[attr-defined]  # else it keeps them all
        yield member
    file.seek(shard.offset)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"no header where one should be, at byte {shard.offset}")


def is_plain_file(member: tarfile.TarInfo) -> bool:
    """Whether a member's bytes lie in the tar as they are: a regular file, and not a sparse one, which is stored in
    pieces and can claim any size."""
    return member.isreg() and not member.issparse()
