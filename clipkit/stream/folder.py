"""A folder of outputs: one file of records for each name a stage emits to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clipkit.errors import UsageError
from clipkit.stream.sink import FileSink


class FolderSink:
    """The main sink of a run whose records go to FOLDER/NAME.jsonl, which `open` makes; itself it takes the rest.

    That is what came with an error, or failed and is kept: FOLDER/errors.jsonl, made if there is any. Every named file
    is made, if need be without a record in it. `refused` are files that must not lie there: an earlier run's leftovers
    would be taken for this run's. Raises UsageError for them, and for a place where no folder can be.
    """

    def __init__(self, folder: str | Path, names: Sequence[str], refused: Sequence[str] = ()) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"-o {folder} is a file", "name a folder, or a .jsonl file")
        if not self.folder.absolute().parent.is_dir():
            raise UsageError(f"-o {folder}: there is no folder {self.folder.parent}", "make it first, with mkdir -p")
        for name in refused:
            if self._path(name).exists():
                raise UsageError(
                    f"{self._path(name)} is there, and this run would not replace it", "move it, or name another folder"
                )
        self._names = tuple(names)
        self._opened: set[str] = set()
        self._errors: FileSink | None = None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.jsonl"

    def open(self, name: str) -> FileSink:
        """The sink of a named output."""
        self.folder.mkdir(exist_ok=True)
        self._opened.add(name)
        return FileSink(self._path(name))

    def write(self, line: bytes, origin: str) -> None:
        if self._errors is None:
            self._errors = self.open("errors")
        self._errors.write(line, origin)

    def flush(self) -> None:
        """Nobody reads a file before it is whole."""

    def commit(self) -> None:
        for name in self._names:
            if name not in self._opened:
                self.open(name).commit()
        if self._errors:
            self._errors.commit()
        else:
            self._path("errors").unlink(missing_ok=True)

    def abort(self) -> None:
        if self._errors:
            self._errors.abort()
