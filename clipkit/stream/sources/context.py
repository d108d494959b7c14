"""What every reader of a source shares: the options, one input, and a line that is no record."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeAlias

from clipkit.errors import RecordError, UsageError
from clipkit.stream.record import Record, encode_json, name_taken
from clipkit.stream.sources.places import Places

MAX_SIDECAR = 16 << 20  # bytes of a caption or of a json beside an image or in a shard
Note: TypeAlias = Callable[[str], None]


@dataclass(frozen=True)
class SourceOptions:
    """What a user says about the input; the same flags in every verb.

    paths: files, folders, patterns, `@lists`; none or `-` is stdin. mapping: `--map`, our name to theirs.
    null: references on stdin end in NUL, as `find -print0` prints. label_from: None or `folder`.
    dup_ids: `error` or `suffix`. shard: (i, n), 1-based. limit: stop after so many records. confine: captions and
    fields beside an image are read only where they lie inside the root once links are followed. label_folders: images
    that were found in a folder, or named themselves, and have no label get the folder's name as one.
    split_folders: of a folder, what lies in folders of its folders train, val and test gets that `split`.
    """

    paths: tuple[str, ...] = ()
    mapping: Mapping[str, str] = field(default_factory=dict)
    root: str | None = None
    null: bool = False
    label_from: str | None = None
    dup_ids: str = "error"
    shard: tuple[int, int] | None = None
    limit: int | None = None
    confine: bool = False
    label_folders: bool = False
    split_folders: bool = False


@dataclass(slots=True)
class BadLine:
    """A piece of input that gives no record: a line that isn't JSON, a second record of one id.

    text: its bytes, at most the first 64 KiB of them. digest: 16 bytes over it. record: the record, where
    there is one (a duplicate id), so that `--on-error keep` can keep it.
    """

    where: str
    text: bytes
    error: RecordError
    origin: str
    digest: bytes
    record: Record | None = None


Item: TypeAlias = Record | BadLine
KEPT = 1 << 16  # bytes of a bad line


def arrived_failed(record: Record) -> bool:
    """Whether a record came with an `error`: it passes as it is. Raises RecordError if that can't be read."""
    return record.get("error") is not None


@dataclass(frozen=True, slots=True)
class Input:
    """One thing to read: `path` as typed, what kind it is, and how messages call it."""

    path: str
    kind: str

    @property
    def shown(self) -> str:
        return "stdin" if self.path == "-" else self.path


@dataclass(slots=True)
class Reading:
    """One input while it is read. `number`: the line, row or count of the item last given, for messages."""

    input: Input
    options: SourceOptions
    places: Places
    note: Note
    stdin: BinaryIO | None  # None: the process's own
    number: int = 0
    bytes_read: int = 0
    outside: int = 0  # sidecars left out by `confine`
    renames: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.renames = {theirs: ours for ours, theirs in self.options.mapping.items()}

    @property
    def where(self) -> str:
        return f"{self.input.shown}:{self.number}"

    @property
    def origin(self) -> str:
        return "" if self.input.path == "-" else self.input.path

    def check_mapping(self, names: Iterator[str]) -> None:
        """Raise a UsageError if a column that `--map` names is not among the first record's.

        Where that has our name already, as in a second run, it is said only.
        """
        have = list(names)
        for ours, theirs in self.options.mapping.items():
            if theirs in have:
                continue
            if ours in have:
                self.note(f"--map {ours}={theirs}: there is no field {theirs!r}; {ours} stays as it is")
            else:
                raise UsageError(
                    f"--map {ours}={theirs}: there is no field {theirs!r}",
                    f"the first record has: {', '.join(have) or 'no fields'}",
                    where=self.where,
                )

    def renamed(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Fields under our names. Raises RecordError (`field-exists`) where two get one name."""
        for theirs, ours in self.renames.items():
            if theirs in fields and ours in fields and ours not in self.renames:
                raise name_taken(theirs, ours)
        return {self.renames.get(name, name): value for name, value in fields.items()}

    def bad(
        self, kind: str, message: str, hint: str | None = None, *, text: bytes = b"", where: str | None = None
    ) -> BadLine:
        """A BadLine here, or at `where`."""
        place = where or self.where
        if len(text) > KEPT:
            message += f" (only its first {KEPT >> 10} KiB are kept)"
        error = RecordError(kind, message, hint, where=place)
        digest = hashlib.blake2b(text or place.encode("utf-8", "surrogateescape"), digest_size=16).digest()
        return BadLine(place, text[:KEPT], error, self.origin, digest)

    def made(self, fields: dict[str, object], *, where: str | None = None) -> Record:
        """A record that was put together rather than read as a line; its digest is over its fields.

        Values may be JSON already (msgspec.Raw). Raises RecordError (`bad-name`) for a path that is not UTF-8.
        """
        try:
            line = encode_json(fields)
        except UnicodeEncodeError:
            raise RecordError("bad-name", "its name is not UTF-8", "rename it") from None
        record = Record.parse(line, where or self.where)
        record.origin = self.origin
        return record
