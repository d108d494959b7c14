"""Temporary files without a name, so that a kill leaves nothing behind. They lie where TMPDIR says."""

from __future__ import annotations

import io
import os
import tempfile
from typing import IO, cast

from clipkit.errors import ClipkitError


def scratch(buffer: int = 1 << 20) -> IO[bytes]:
    """An empty temporary file to write and read; buffer: bytes written, or read, at once.

    Raises ClipkitError where TMPDIR names no folder that takes files: they would go elsewhere, where there may not be
    room for them. So does a write that fails.
    """
    folder, named = tempfile.gettempdir(), os.environ.get("TMPDIR")
    if named and os.path.realpath(folder) != os.path.realpath(named):
        raise ClipkitError(f"TMPDIR is {named}, where no file can be made", "name a folder with room, or unset it")
    with tempfile.TemporaryFile(prefix="clipkit-", buffering=0) as file:
        raw = _Scratch(os.dup(file.fileno()), "r+b")
    return cast(IO[bytes], io.BufferedRandom(raw, buffer))


class _Scratch(io.FileIO):
    """Says where it lies when the disk is full: without a name, nobody would know."""

    def write(self, data: object, /) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            said = (error.strerror or str(error)).lower()
            raise ClipkitError(
                f"temporary files in {tempfile.gettempdir()}: {said}", "TMPDIR=FOLDER moves them"
            ) from None
