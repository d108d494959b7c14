"""The feature store: vectors of a whole data set in a folder that clip-retrieval and autofaiss can read.

    DIR/clipkit.json                        format, model identity, outputs, parts, counts
    DIR/img_emb/img_emb_0.npy               f16 [rows, d], unit length before rounding
    DIR/text_emb/text_emb_0.npy             f16 [rows, d]
    DIR/backbone_emb/backbone_emb_0.npy     f16 [rows, b], as the model gives them
    DIR/metadata/metadata_0.parquet         id, image_path, caption, has_image, has_text, record

One part for each input file, split at 100,000 rows. Row r of part p is the same record in all of them. A record that
lacks an image or a text has zeros there and says so in `has_image` or `has_text`, so that rows stay aligned for readers
that join by position; clipkit itself joins by id. `record` is the whole record as a line of JSON, without its vectors.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from clipkit.errors import ClipkitError, RecordError
from clipkit.features.inline import unit

if TYPE_CHECKING:
    from clipkit.models.base import Identity

FORMAT: Final = 1
KIND: Final = "features"
MANIFEST: Final = "clipkit.json"
REMAKE: Final = "make the store again with clipkit embed"
_RELEASE_AFTER: Final = 65_536  # rows
FOLDERS: Final = {"image": "img_emb", "text": "text_emb", "backbone": "backbone_emb"}


def vectors_path(folder: Path, output: str, part: int) -> Path:
    """Where the vectors of one output and part lie."""
    return folder / FOLDERS[output] / f"{FOLDERS[output]}_{part}.npy"


def metadata_path(folder: Path, part: int) -> Path:
    """Where the records of one part lie."""
    return folder / "metadata" / f"metadata_{part}.parquet"


def describe_identity(identity: Identity) -> dict[str, Any]:
    """A model's identity as JSON, with its digest."""
    return {**asdict(identity), "digest": identity.digest}


class Model(msgspec.Struct, frozen=True):
    """Which model the vectors are of; the manifest says more of it."""

    name: str
    digest: str


class Output(msgspec.Struct, frozen=True):
    """dim: width of the rows."""

    dim: int


class Part(msgspec.Struct, frozen=True):
    """rows: how many. source: the name of the input file they came from; "" for stdin and folders."""

    rows: int
    source: str = ""


class _Head(msgspec.Struct, frozen=True):
    format: int
    kind: str


class Manifest(msgspec.Struct, frozen=True):
    """What DIR/clipkit.json must say."""

    model: Model
    outputs: dict[str, Output]
    parts: list[Part]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record's vectors are."""

    part: int
    row: int


class Store:
    """A feature store, read by id through memory maps. Not for threads to share."""

    def __init__(self, folder: str | Path) -> None:
        """Open DIR. Raises ClipkitError where it is no store, a newer one, or not whole."""
        self.folder = Path(folder)
        manifest = _read_manifest(self.folder)
        self.model = manifest.model
        self._dims = {name: output.dim for name, output in manifest.outputs.items()}
        self._rows = [part.rows for part in manifest.parts]
        self._starts = np.cumsum([0, *self._rows])  # [parts + 1], rows before each part
        self._maps: dict[tuple[str, int], np.ndarray] = {}
        self._columns: dict[tuple[str, int], Any] = {}
        self._presence: dict[tuple[str, int], np.ndarray] = {}
        self._looked = 0
        self._index: tuple[np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __str__(self) -> str:
        return f"{self.model.name}@{self.model.digest}"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Those of `image`, `text`, `backbone` that it holds."""
        return tuple(self._dims)

    def dim(self, output: str) -> int:
        """The width of an output's rows. Raises ClipkitError for one that the store lacks."""
        if output not in self._dims:
            held = f"has no {output} features, only {', '.join(self._dims)}" if self._dims else "is empty"
            raise ClipkitError(f"{self.folder} {held}", "make the store again with clipkit embed")
        return self._dims[output]

    def require(self, identity: Identity) -> None:
        """Raise ClipkitError, naming both, unless the features are of this very model."""
        if self.model.digest != identity.digest:
            from clipkit.models.names import again

            made = f"clipkit embed SOURCE -o {self.folder} --model {again(identity.name)}"
            raise ClipkitError(
                f"the features in {self.folder} are of {self}, not of {identity}",
                f"run: {made}; or name the model they are of",
            )

    @property
    def parts(self) -> int:
        """How many parts it has."""
        return len(self._rows)

    def ids(self, part: int) -> list[str]:
        """The ids of one part, in row order."""
        ids: list[str] = self._column("id", part).to_pylist()
        return ids

    def find(self, id: str) -> Place | None:
        """Where a record is, or None."""
        hashes, positions = self._hashes()
        at = int(np.searchsorted(hashes, _hash(id)))
        while at < len(hashes) and hashes[at] == _hash(id):
            place = self._place(int(positions[at]))
            if self._id_at(place) == id:
                return place
            at += 1
        return None

    def resolve(self, reference: str, id: str | None) -> Place:
        """The place that `DIR#PART:ROW` names, checked to hold the record `id`. Raises RecordError (`bad-emb`)."""
        part, _, row = reference.rpartition("#")[2].partition(":")
        if not (part.isdecimal() and row.isdecimal()):
            raise RecordError("bad-emb", f"{reference!r} is not DIR#PART:ROW")
        place = Place(int(part), int(row))
        if place.part >= len(self._rows) or place.row >= self._rows[place.part]:
            raise RecordError("bad-emb", f"{self.folder} has no row {part}:{row}", "the store was made anew since?")
        found = self._id_at(place)
        if found != id:
            raise RecordError("bad-emb", f"row {part}:{row} of {self.folder} is {found!r}, not {id!r}")
        return place

    def features(self, ids: Sequence[str], output: str = "image") -> np.ndarray:
        """Rows f32 [n, d] of records by id, unit length (backbone rows as they are).

        Raises RecordError (`no-feature`) for an id that is not there, or has none of this output.
        """
        return self.rows([self._found(name) for name in ids], output)

    def caption_features(self, id: str, caption: str) -> np.ndarray | None:
        """The text row f32 [d] of a record; None where there is none, or where it is of another caption than this."""
        place = self.find(id)
        if place is None or "text" not in self._dims or not self._present("text", place.part)[place.row]:
            return None
        if self._column("caption", place.part)[place.row].as_py() != caption:
            return None
        row: np.ndarray = self.rows([place], "text")[0]
        return row

    def rows(self, places: Sequence[Place], output: str = "image") -> np.ndarray:
        """Rows f32 [n, d] at places; as `features`."""
        raw = np.empty((len(places), self.dim(output)), np.float16)
        for row, place in zip(raw, places, strict=True):
            if not self._present(output, place.part)[place.row]:
                raise RecordError("no-feature", f"{self.folder} has no {output} feature of {self._id_at(place)!r}")
            row[:] = self._map(output, place.part)[place.row]
        self._release(len(places))
        return _widen(raw, output)

    def blocks(self, output: str = "image", rows: int = 65_536) -> Iterator[tuple[list[str], np.ndarray]]:
        """All records that have this output, `rows` at a time at most: their ids and their rows f32 [n, d]."""
        for part, count in enumerate(self._rows):
            for start in range(0, count, rows):
                here = slice(start, start + rows)
                present = self._present(output, part)[here]
                ids = self._column("id", part).slice(start, rows).filter(present).to_pylist()
                yield ids, _widen(self._map(output, part)[here][present], output)

    def records(self) -> Iterator[bytes]:
        """The records, as lines of JSON without their vectors, in store order."""
        for part in range(len(self._rows)):
            with _reading(metadata_path(self.folder, part)):
                for batch in _parquet(metadata_path(self.folder, part)).iter_batches(4096, columns=["record"]):
                    yield from (line.as_py().encode() for line in batch.column(0))

    def _map(self, output: str, part: int) -> np.ndarray:
        """One part's vectors, f16 [rows, d], memory-mapped and checked against the manifest."""
        if (output, part) not in self._maps:
            path, shape = vectors_path(self.folder, output, part), (self._rows[part], self.dim(output))
            with _reading(path):
                array = np.load(path, mmap_mode="r", allow_pickle=False)
                if array.shape != shape or array.dtype != np.float16:
                    raise ValueError(f"it holds {array.dtype} {array.shape}, not float16 {shape}")
            self._maps[output, part] = array
        return self._maps[output, part]

    def _release(self, looked: int) -> None:
        """Now and then let go of mapped pages: they stay in the system's cache, and no longer count as ours."""
        self._looked += looked
        if self._looked >= _RELEASE_AFTER and hasattr(mmap, "MADV_DONTNEED"):
            for array in self._maps.values():
                mapped: Any = array.base
                if isinstance(mapped, mmap.mmap):  # an empty part has none
                    mapped.madvise(mmap.MADV_DONTNEED)
            self._looked = 0

    def _column(self, name: str, part: int) -> Any:
        """A column of one part's metadata, as an Arrow array: ids take a tenth of what Python strings would."""
        if (name, part) not in self._columns:
            path = metadata_path(self.folder, part)
            with _reading(path):
                column = _parquet(path).read(columns=[name]).column(name).combine_chunks()
                if len(column) != self._rows[part]:
                    raise ValueError(f"it holds {len(column)} rows, not {self._rows[part]}")
            self._columns[name, part] = column
        return self._columns[name, part]

    def _present(self, output: str, part: int) -> np.ndarray:
        """Which rows of a part have a vector, bool [rows]."""
        name = "has_text" if output == "text" else "has_image"
        if (name, part) not in self._presence:  # a copy: not to be made for every row that is asked for
            self._presence[name, part] = np.asarray(self._column(name, part).to_numpy(zero_copy_only=False))
        return self._presence[name, part]

    def _hashes(self) -> tuple[np.ndarray, np.ndarray]:
        """64-bit hashes of all ids, sorted, and the positions they stand for (rows counted over all parts)."""
        if self._index is None:
            names = (name for part in range(len(self._rows)) for name in self.ids(part))
            hashes = np.fromiter((_hash(name) for name in names), np.uint64, len(self))
            order = np.argsort(hashes, kind="stable")
            self._index = hashes[order], order
        return self._index

    def _place(self, position: int) -> Place:
        part = int(np.searchsorted(self._starts, position, side="right")) - 1
        return Place(part, position - int(self._starts[part]))

    def _id_at(self, place: Place) -> str:
        return str(self._column("id", place.part)[place.row].as_py())

    def _found(self, name: str) -> Place:
        place = self.find(name)
        if place is None:
            raise RecordError("no-feature", f"{self.folder} has no record {name!r}", "run clipkit embed over it")
        return place


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what readers of npy and parquet raise into one error that says what to do."""
    try:
        yield
    except FileNotFoundError:
        raise ClipkitError(f"{path} is missing", REMAKE) from None
    except (ValueError, OSError, EOFError) as error:  # pyarrow's errors are ValueErrors too
        raise ClipkitError(f"{path} is damaged: {error}", REMAKE) from None


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
        head = msgspec.json.decode(data, type=_Head)
        if head.kind != KIND:
            raise ClipkitError(f"{folder} holds {head.kind}, not features")
        if head.format > FORMAT:
            raise ClipkitError(f"{folder} was written by a newer clipkit (format {head.format})", "upgrade clipkit")
        return msgspec.json.decode(data, type=Manifest)
    except (FileNotFoundError, NotADirectoryError):
        raise ClipkitError(f"{folder} is not a feature store", "make one with: clipkit embed SOURCE -o DIR") from None
    except msgspec.DecodeError as error:
        raise ClipkitError(f"{path} is damaged: {error}", REMAKE) from None


def kind_of(folder: Path) -> str | None:
    """What a folder's clipkit.json says it holds, of whatever format; None where it has none."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=_Head).kind
    except (OSError, msgspec.DecodeError):
        return None


def _parquet(path: Path) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetFile(path)


def _hash(name: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little"))


def _widen(raw: np.ndarray, output: str) -> np.ndarray:
    return raw.astype(np.float32) if output == "backbone" else unit(raw)
