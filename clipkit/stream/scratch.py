"""Temporary files without a name, so that a kill leaves nothing behind. They lie where TMPDIR says."""

from __future__ import annotations

import io
import os
import tempfile
from typing import IO, cast

from clipkit.errors import ClipkitError


def scratch(buffer: int = 1 << 20) -> IO[bytes]:
    """An empty temporary file to write and read; buffer: bytes written, or read, at once.

    Raises ClipkitError where TMPDIR names no folder that takes files: elsewhere, where Python would put them, there may
    not be room for them. A write that fails raises it too, and says where.
    """
    folder = os.environ.get("TMPDIR") or tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile(prefix="clipkit-", dir=folder, buffering=0) as file:
            raw = _Scratch(os.dup(file.fileno()), folder)
    except OSError as error:
        raise _failed(folder, error) from None
    return cast(IO[bytes], io.BufferedRandom(raw, buffer))


class _Scratch(io.FileIO):
    """Says where it lies when the disk is full: without a name, nobody would know."""

    def __init__(self, number: int, folder: str) -> None:
        super().__init__(number, "r+b")
        self._folder = folder

    def write(self, data: object, /) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            raise _failed(self._folder, error) from None


def _failed(folder: str, error: OSError) -> ClipkitError:
    return ClipkitError(
        f"temporary files in {folder}: {(error.strerror or str(error)).lower()}", "TMPDIR=FOLDER moves them"
    )
