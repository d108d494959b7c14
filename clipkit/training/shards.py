"""Examples in tar shards, read from front to end: what a disk or a network gives fastest.

webdataset expands the tars, and nothing else of it runs: not its decoders, which would unpickle what a stranger packed,
and not its openers, which would take a name such as `pipe:...` for a command. It sees only what was looked at first.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import numpy as np

from clipkit.errors import ClipkitError, RecordError, UsageError
from clipkit.images.opener import Opener
from clipkit.references import is_local
from clipkit.stream.hashing import ticket
from clipkit.stream.record import Record
from clipkit.stream.sources.context import MAX_SIDECAR, BadLine, Input, Reading, SourceOptions
from clipkit.stream.sources.folders import is_image_name
from clipkit.stream.sources.inputs import expand
from clipkit.stream.sources.places import Places, shard_stem
from clipkit.stream.sources.tars import SPARSE, Sample, record, samples
from clipkit.tars import BROKEN
from clipkit.training.examples import Example, captions_of

APART: Final = "split"  # what is said of samples that are not for training: no fault of theirs
_HELD: Final = 256 << 20  # bytes of examples that are mixed
_TOGETHER: Final = 64  # samples that webdataset expands at once
_PACKED: Final = (
    b"\x1f\x8b\x08",
    b"BZh",
    b"\x5d\x00\x00\x80",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
)  # tarfile unpacks these
_MANIFEST: Final = "clipkit.json"


class Shard(msgspec.Struct, array_like=True, frozen=True):
    """A tar as a row of the runner's first pass.

    name: what its samples' ids begin with. path: as records refer to it. count: whole samples. size: bytes on disk.
    problem: why there are no more of them, where it is cut off or broken.
    """

    name: str
    path: str
    count: int
    size: int
    problem: str = ""


def shard_paths(sources: Sequence[str]) -> list[str] | None:
    """The tars that SOURCEs stand for, patterns and folders of nothing but shards among them; None where something else
    is read. Raises UsageError for what isn't there, and for shards that are no files: they are never fetched here.
    """
    found: list[str] = []
    for source in sources:
        if source != "-" and not os.path.lexists(source) and (source.startswith("pipe:") or not is_local(source)):
            raise UsageError(f"{source}: shards are read from disk", "fetch them first: no command and no URL is run")
        for item in expand((source,)):
            inside = _inside(item.path) if item.kind == "folder" else [item.path]
            if item.kind not in ("tar", "folder") or not inside:
                return None
            found += inside
    return found or None


def _inside(folder: str) -> list[str]:
    """The shards of a folder without pictures and folders: a pack, or what img2dataset writes."""
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if not entry.name.startswith(".")]
    if any(entry.is_dir() or is_image_name(entry.name) for entry in found):
        return []
    return sorted(entry.path for entry in found if entry.name.endswith(".tar"))


def shard_records(paths: Sequence[str], root: str | None = None) -> Iterator[Record]:
    """A record a shard: its `id`, and its path in `shard`."""
    places = Places(root)
    for path in paths:
        fields = {"id": shard_stem(path), "shard": places.reference_to(path)}
        made = Record(fields, where=path)
        made.origin = path
        yield made


def shard_of(record: Record, root: str | None = None) -> Shard:
    """What a shard holds: what the manifest beside it says, if it was packed by clipkit and is as it was then, else
    what its headers say. Raises RecordError `shard-broken` for one without a sample that could be used.
    """
    name, path = record.id or "", record["shard"]
    file = os.path.join(Places(root).root, path)
    size, count, problem = 0, 0, ""
    try:
        size = os.path.getsize(file)
        known = _packed(Path(file).absolute().parent / _MANIFEST).get(os.path.basename(file))
        if known is not None and known.size == size:
            return Shard(name, path, known.count, size)
        with open(file, "rb") as opened:
            for _ in samples(opened, size, Counter()):
                count += 1
    except (*BROKEN, OSError) as error:
        problem = str(error) or type(error).__name__
    if not count:
        raise RecordError("shard-broken", f"{path} has no sample that can be used: {problem or 'it is empty'}")
    return Shard(name, path, count, size, problem)


class _Entry(msgspec.Struct):
    name: str
    count: int
    size: int


class _Pack(msgspec.Struct):
    kind: str
    shards: list[_Entry] = []


def _packed(manifest: Path) -> dict[str, _Entry]:
    """The shards of a folder that `clipkit pack` wrote, by name."""
    try:
        return _entries(manifest, manifest.stat().st_mtime_ns)
    except (OSError, msgspec.MsgspecError):
        return {}


@lru_cache(maxsize=64)
def _entries(manifest: Path, version: int) -> dict[str, _Entry]:
    pack = msgspec.json.decode(manifest.read_bytes(), type=_Pack)
    return {shard.name: shard for shard in pack.shards} if pack.kind == "pack" else {}


class ShardExamples:
    """Examples of shards. In each epoch the shards stand in an order by hash, one after the other; of this line each
    process takes a part, as long as that of the others, so that it reads few shards that others read, however many
    processes there are. What it takes it mixes: no example comes further from its place than about `held` bytes of
    examples, which is how many are in memory. So an order is known without anything being read, and a resumed run reads
    only what is still to come.

    held: also a bound: what is larger than usual is left on disk until its turn.
    notices: what a person should hear of before it begins.
    """

    def __init__(self, shards: Sequence[Shard], opener: Opener, seed: int, *, held: int = _HELD) -> None:
        """Raises ClipkitError where there is no sample at all."""
        self._opener, self._seed, self._held, self._places = opener, seed, held, Places()
        self._shards = [shard for shard in shards if shard.count]
        if not self._shards:
            raise ClipkitError("there is nothing to train on: no shard has a sample")
        self._counts = np.array([shard.count for shard in self._shards], np.int64)
        self._window = max(1, held * len(self) // max(1, sum(shard.size for shard in self._shards)))
        self._tickets = {shard.name: ticket(shard.name, seed, "shard") for shard in self._shards}
        described = sorted((shard.name, shard.count, shard.size) for shard in self._shards)
        self.digest = hashlib.blake2b(msgspec.msgpack.encode([described, self._window]), digest_size=16).hexdigest()
        self.notices = [
            f"{shard.path} is cut off or broken: the {shard.count:,} samples before that are used ({shard.problem})"
            for shard in self._shards
            if shard.problem
        ]

    def __len__(self) -> int:
        return int(self._counts.sum())

    def walk(self, first: int, rank: int, world: int) -> Iterator[tuple[int, int, Example]]:
        position = first + (rank - first) % world
        while True:
            epoch = position // len(self)
            parts = [_positions(len(self), epoch, other, world) for other in range(world)]
            mine = parts[rank]
            order = sum(map(len, parts[:rank])) + self._mixed(len(mine), f"{epoch}/{rank}/{world}")
            done = (position - mine.start) // world
            for example in self._in_order(epoch, order[done:]):
                yield position, epoch, example
                position += world

    def read(self, example: Example) -> bytes:
        return example.image if isinstance(example.image, bytes) else self._opener.read(example.image)

    def _mixed(self, count: int, purpose: str) -> np.ndarray:
        """The numbers up to `count`, int64, none further than the window from where it was."""
        seed = int.from_bytes(ticket(purpose, self._seed, "mixed"), "big")
        drawn = np.random.PCG64(seed).random_raw(count) >> np.uint64(11)
        moved = np.arange(count) + drawn * (self._window * 2.0**-53)
        return np.argsort(moved, kind="stable")

    def _in_order(self, epoch: int, order: np.ndarray) -> Iterator[Example]:
        """The examples of these places in the line of an epoch's shards. What is read before its turn waits, as bytes
        while there is room for them, else where it lies."""
        waiting: dict[int, Example] = {}
        room = self._held
        coming = self._read(epoch, np.sort(order))
        for place in map(int, order):  # a list of them would take five times the room
            while place not in waiting:
                number, example, reference = next(coming)
                size = len(example.image)
                if isinstance(example.image, bytes) and size > room:
                    example = replace(example, image=reference)
                elif isinstance(example.image, bytes):
                    room -= size
                waiting[number] = example
            example = waiting.pop(place)
            if isinstance(example.image, bytes):
                room += len(example.image)
            yield example

    def _read(self, epoch: int, places: np.ndarray) -> Iterator[tuple[int, Example, str]]:
        """The examples of places in ascending order, and where the picture of each lies."""
        numbers = sorted(range(len(self._shards)), key=lambda number: self._ticket(number, epoch))
        ends = np.cumsum(self._counts[numbers])
        for number, end in zip(numbers, ends.tolist(), strict=True):
            start = end - int(self._counts[number])
            low, high = np.searchsorted(places, [start, end])
            if low < high:
                wanted = places[low:high] - start
                for inside, example, reference in self._of_shard(self._shards[number], wanted.tolist()):
                    yield start + inside, example, reference

    def _ticket(self, number: int, epoch: int) -> bytes:
        return ticket(self._tickets[self._shards[number].name], self._seed, f"shards/{epoch}")

    def _of_shard(self, shard: Shard, wanted: list[int]) -> Iterator[tuple[int, Example, str]]:
        """Some samples of a shard, by number, ascending: all of them, those that cannot be read as problems."""
        given = 0
        reading = Reading(Input(shard.path, "tar"), SourceOptions(), self._places, _quiet, None)
        try:
            for sample, content in _expanded(self._path(shard), wanted, self._opener.limits.max_bytes):
                yield wanted[given], *_example(reading, sample, content)
                given += 1
            problem = RecordError("shard-broken", f"{shard.path} has fewer samples than it had before")
        except RecordError as error:
            problem = error
        except (*BROKEN, OSError) as error:
            problem = RecordError("shard-broken", f"{shard.path}: {str(error) or type(error).__name__}")
        for number in wanted[given:]:
            yield number, Example(f"{shard.name}/sample {number}", (), (), b"", problem), ""

    def _path(self, shard: Shard) -> Path:
        path = self._opener.path(shard.path)
        if path is None:
            raise RecordError("shard-broken", f"{shard.path}: shards are read from disk")
        return path


def _positions(total: int, epoch: int, rank: int, world: int) -> range:
    """The positions of an epoch that are a process's."""
    start = epoch * total
    return range(start + (rank - start) % world, start + total, world)


def _example(reading: Reading, sample: Sample, content: dict[str, bytes]) -> tuple[Example, str]:
    """A sample as the record that a tar as SOURCE makes of it would be, and where its picture lies."""
    shard = reading.input.path
    item = record(reading, sample, shard, lambda member: _content(content, member))
    name = f"{shard_stem(shard)}/{sample.key}"
    try:
        if isinstance(item, BadLine):
            raise item.error
        name = item.id or name
        if (error := item.get("error")) is not None:
            kind = error.get("type") if isinstance(error, dict) else None
            raise RecordError(kind if isinstance(kind, str) else "error", "it came with an error")
        if (split := item.get("split")) in ("val", "test"):
            raise RecordError(APART, f"its split is {split}")
        image = sample.image()
        if image is None:
            raise RecordError("image-missing", "the sample has no image")
        captions, negatives = captions_of(item)
    except RecordError as error:
        return Example(name, (), (), b"", error), ""
    reference = f"{shard}#{image}"
    return Example(name, captions, negatives, content.get(image, reference)), reference


def _quiet(message: str) -> None:
    """Nobody is told: what a shard leaves out was said when it was counted."""


def _expanded(path: Path, wanted: list[int], most: int) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    """Samples of a tar by number, ascending, each with the bytes of its members that matter, by name; images of more
    than `most` bytes are left out. Where there are fewer, fewer are given, or then one of BROKEN or OSError is raised.
    """
    left_out: Counter[str] = Counter()
    with open(path, "rb") as headers, open(path, "rb") as file:
        listed = enumerate(samples(headers, os.fstat(headers.fileno()).st_size, left_out))
        for first in range(0, len(wanted), _TOGETHER):
            some, broken = [], None
            try:
                for sample in _picked(listed, wanted[first : first + _TOGETHER]):
                    some.append(sample)  # noqa: PERF402  # what comes before the tar is broken is used
            except BROKEN as error:
                broken = error
            if left_out[SPARSE]:
                raise tarfile.ReadError("it has sparse files, which can claim any size")
            yield from _members(file, some, most)
            if broken is not None:
                raise broken


def _picked(listed: Iterator[tuple[int, Sample]], numbers: list[int]) -> Iterator[Sample]:
    """The samples of these numbers, ascending; nothing after the last of them is read."""
    for wanted in numbers:
        for number, sample in listed:
            if number == wanted:
                yield sample
                break


def _members(file: BinaryIO, some: list[Sample], most: int) -> Iterator[tuple[Sample, dict[str, bytes]]]:
    """Samples in the order of the tar, with the bytes of their members."""
    from webdataset.tariterators import tar_file_iterator

    needed = [_needed(sample, most) for sample in some]
    every = [member for members in needed for member in members.values()]
    names = {member.name for member in every}
    found: Iterator[dict[str, bytes]] = iter(())
    if every:
        start = min(member.offset for member in every)
        end = max(member.offset_data + member.size for member in every)
        found = tar_file_iterator(_Part(file, start, end), skip_meta=None, select_files=names.__contains__)
    for sample, members in zip(some, needed, strict=True):
        content: dict[str, bytes] = {}
        while len(content) < len(members):
            member = next(found, None)
            if member is None:
                raise tarfile.ReadError("it was changed while it was read")
            name, data = str(member["fname"]), member["data"]
            if name in members and len(data) == members[name].size:
                content[name] = data
        yield sample, content


def _needed(sample: Sample, most: int) -> dict[str, tarfile.TarInfo]:
    """The members that make an example, by name: other files of the same key are never looked at."""
    image = sample.image()
    members = {
        member.name: member for member in sample.members.values() if member.name == image and member.size <= most
    }
    return members | {member.name: member for member in sample.sidecars().values() if member.size <= MAX_SIDECAR}


def _content(content: dict[str, bytes], member: tarfile.TarInfo) -> bytes:
    if member.name not in content:
        raise RecordError("bad-sidecar", f"{os.path.basename(member.name)} is larger than {MAX_SIDECAR >> 20} MiB")
    return content[member.name]


class _Part:
    """A part of a file, as a stream."""

    def __init__(self, file: BinaryIO, start: int, end: int) -> None:
        """Raises ReadError where tarfile would take it for something packed, and unpack it."""
        self._file, self._left = file, end - start
        file.seek(start)
        head = file.read(max(map(len, _PACKED)))
        if head.startswith(_PACKED):
            raise tarfile.ReadError(f"a name that begins as packed files do: {head!r}")
        file.seek(start)

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data
