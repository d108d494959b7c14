"""Writing a feature store: parts beside the final folder, swapped in when all is there."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from clipkit import __version__
from clipkit.errors import RecordError, UsageError
from clipkit.features.inline import unpack
from clipkit.features.store import FOLDERS, FORMAT, KIND, MANIFEST, kind_of, metadata_path, vectors_path
from clipkit.stream.folders import aside, recover, replace
from clipkit.stream.record import Record, encode_json
from clipkit.stream.sink import part_of

if TYPE_CHECKING:
    import pyarrow as pa

PART_ROWS: Final = 100_000
_GROUP_ROWS: Final = 5_000  # of a parquet row group; what of the metadata is held in memory
_HEADER_BYTES: Final = 128
_UNFINISHED: Final = "unfinished features"


@dataclass(frozen=True, slots=True)
class Layout:
    """What a store will hold. model: `describe_identity` of the encoder. dims: output -> width of its rows."""

    model: dict[str, Any]
    dims: dict[str, int]


class StoreSink:
    """A sink (`clipkit.stream.sink.Sink`) that makes a feature store of records that hold inline vectors.

    The store is a function of the lines and nothing else, so a resumed run gives the same one. Records with an `error`
    are counted and left out: a store holds features. It is written as FOLDER.part and renamed; a store that lies at
    FOLDER is replaced only then. Peak memory doesn't depend on the number of records.
    """

    def __init__(self, folder: str | Path, layout: Callable[[], Layout]) -> None:
        """layout: asked at the first record, when the model is loaded.

        Raises UsageError where FOLDER is something that must not be replaced.
        """
        self._folder = Path(os.path.realpath(folder))
        check_target(self._folder)
        self._building = part_of(self._folder)
        self._ask = layout
        self._layout: Layout | None = None
        self._part: _Part | None = None
        self._origin = ""
        self._parts: list[dict[str, Any]] = []
        self._counts: Counter[str] = Counter()

    def write(self, line: bytes, origin: str) -> None:
        """Add one record; its vectors are taken out of `emb`."""
        dims = self._begin().dims
        record = Record.parse(line)
        if record.get("error") is not None:
            self._counts["failed"] += 1
            return
        vectors = _take(record, dims)
        if self._part is not None and (origin != self._origin or self._part.rows == PART_ROWS):
            self._end_part()
        if self._part is None:
            self._part, self._origin = _Part(self._building, len(self._parts), dims), origin
        self._part.add(record, vectors)
        self._counts.update(("rows", *vectors))

    def flush(self) -> None:
        """Nobody reads a store while it is made."""

    def commit(self) -> None:
        """Finish the parts, write the manifest and put the store in place."""
        layout = self._begin()
        self._end_part()
        held = {output: dim for output, dim in layout.dims.items() if self._counts[output]}
        for output in layout.dims.keys() - held.keys():  # no record has one: zeros for everyone are of no use
            shutil.rmtree(self._building / FOLDERS[output], ignore_errors=True)
        manifest = {
            "format": FORMAT,
            "kind": KIND,
            "clipkit": __version__,
            "model": layout.model,
            "outputs": {output: {"dim": dim, "dtype": "float16"} for output, dim in held.items()},
            "parts": self._parts,
            "counts": {name: self._counts[name] for name in ("rows", *held, "failed")},
        }
        (self._building / MANIFEST).write_bytes(encode_json(manifest) + b"\n")
        replace(self._building, self._folder)

    def abort(self) -> None:
        """Leave nothing but what was at FOLDER before."""
        if self._part is not None:
            self._part.close()
            self._part = None
        if self._layout is not None:
            shutil.rmtree(self._building, ignore_errors=True)
            recover(self._folder)

    def _begin(self) -> Layout:
        """Make the folder to build in. Not before there is something to write: the run's lock is held from then on."""
        if self._layout is None:
            self._layout = self._ask()
            recover(self._folder)
            if self._building.exists():
                shutil.rmtree(self._building)  # of a run that was killed
            self._building.mkdir()
            (self._building / MANIFEST).write_bytes(encode_json({"format": FORMAT, "kind": _UNFINISHED}))
            for folder in ("metadata", *(FOLDERS[output] for output in self._layout.dims)):
                (self._building / folder).mkdir()
        return self._layout

    def _end_part(self) -> None:
        if self._part is not None:
            self._part.finish()
            self._parts.append({"rows": self._part.rows, "source": PurePath(self._origin).name})
            self._part = None


class _Part:
    """The files of one part, rows appended as they come."""

    def __init__(self, folder: Path, number: int, dims: dict[str, int]) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        self.rows = 0
        self._dims = dims
        self._arrays: dict[str, BinaryIO] = {}
        for output in dims:
            file = self._arrays[output] = open(vectors_path(folder, output, number), "wb", buffering=1 << 18)
            file.write(bytes(_HEADER_BYTES))
        text, flag = pa.string(), pa.bool_()
        names = {"id": text, "image_path": text, "caption": text, "has_image": flag, "has_text": flag, "record": text}
        self._schema = pa.schema(list(names.items()))
        self._metadata = pyarrow.parquet.ParquetWriter(metadata_path(folder, number), self._schema, compression="zstd")
        self._group: list[tuple[Any, ...]] = []

    def add(self, record: Record, vectors: dict[str, np.ndarray]) -> None:
        for output, file in self._arrays.items():
            file.write(vectors[output].tobytes() if output in vectors else bytes(2 * self._dims[output]))
        texts = [
            value if isinstance(value, str) else "" for value in (record.id, record.get("image"), record.get("text"))
        ]
        self._group.append((*texts, "image" in vectors, "text" in vectors, record.encode().decode()))
        self.rows += 1
        if len(self._group) == _GROUP_ROWS:
            self._write_group()

    def finish(self) -> None:
        """Write what is due, and the headers, whose number of rows is known now."""
        self._write_group()
        for output, file in self._arrays.items():
            file.seek(0)
            file.write(_npy_header(self.rows, self._dims[output]))
        self.close()

    def close(self) -> None:
        for file in self._arrays.values():
            file.close()
        self._metadata.close()

    def _write_group(self) -> None:
        import pyarrow as pa

        if self._group:
            columns = zip(zip(*self._group, strict=True), self._schema, strict=True)
            arrays = [
                _flags(values) if pa.types.is_boolean(field.type) else _strings(values) for values, field in columns
            ]
            self._metadata.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
            self._group = []


# pyarrow.array would do both, but imports pandas where that is installed, which takes longer than a hundred images.


def _strings(values: Sequence[str]) -> pa.Array:
    import pyarrow as pa

    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(values), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))])


def _flags(values: Sequence[bool]) -> pa.Array:
    import pyarrow as pa

    bits = np.packbits(values, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, pa.py_buffer(bits)])


def _take(record: Record, dims: dict[str, int]) -> dict[str, np.ndarray]:
    """The record's inline vectors by output, taken out of its `emb`, where other entries stay. Raises RecordError."""
    emb = record.get("emb", {})
    vectors = {output: unpack(emb[output]) for output in dims if output in emb}
    for output, vector in vectors.items():
        if len(vector) != dims[output]:
            raise RecordError("bad-emb", f"{output} has {len(vector)} dimensions, not {dims[output]}")
        record.discard(f"emb.{output}")
    if vectors and not record["emb"]:
        del record["emb"]
    return vectors


def check_target(folder: Path) -> None:
    """Raise UsageError before any work if a store cannot be made at FOLDER, or something else is in its way."""
    if not folder.parent.is_dir():
        raise UsageError(f"-o {folder}: there is no folder {folder.parent}", f"make it first: mkdir -p {folder.parent}")
    for path in (folder, part_of(folder), aside(folder)):
        if path.exists() and kind_of(path) not in (KIND, _UNFINISHED) and not _is_empty(path):
            raise UsageError(f"{path} exists and is not a feature store", "name a new folder with -o")


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _npy_header(rows: int, width: int) -> bytes:
    """A version 1.0 .npy header of exactly _HEADER_BYTES bytes, so that it can be written after the rows."""
    described = f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({rows}, {width}), }}"
    head = b"\x93NUMPY\x01\x00" + (_HEADER_BYTES - 10).to_bytes(2, "little")
    return head + described.encode("ascii").ljust(_HEADER_BYTES - 11) + b"\n"
