"""The sink that makes a pack: shards that appear when they are whole, and a manifest that says which they are."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Final

import msgspec

from clipkit.errors import ClipkitError, RecordError, UsageError
from clipkit.packing.layout import FORMATS, Layout
from clipkit.packing.manifest import Manifest, Shard, check_target, remove, size_of
from clipkit.packing.samples import Images, Sample, marked, samples_of
from clipkit.packing.shards import Writer
from clipkit.stream.record import Record
from clipkit.stream.sink import part_of

_MOST_SHARDS: Final = 100_000  # with five digits their names sort
_LENGTH = struct.Struct("<I")
_SPOOLED: Final = 16 << 20


class PackSink:
    """A sink (`clipkit.stream.sink.Sink`) that writes the lines of the stage `Pack`, sorted by id, as shards.

    The pack is a function of the lines and nothing else. With `resume` a shard that an earlier run finished is kept
    where it would come out the same; others are replaced, each by a rename. Records with an `error` are counted and
    left out. Memory doesn't depend on the number of records.
    """

    def __init__(
        self, folder: str | Path, layout: Layout, images: Images, *, resume: bool = False, restart: bool = False
    ) -> None:
        """Raises UsageError where FOLDER cannot be made, or holds what must not be written over."""
        self._folder = Path(os.path.realpath(folder))
        self._layout, self._images = layout, images
        self.format = FORMATS[layout.to]()
        self._manifest = Manifest(self._folder, layout)
        self._restart = restart
        self._width = max(4, len(str(layout.max_count - 1)))
        self._begun = False
        self._known: dict[str, Shard] = {}  # of earlier runs
        self._shards: list[Shard] = []
        self._open: _Open | None = None
        self._copies = _Copies()
        self._counts = Counter(records=0, samples=0, without_image=0, passed=0)
        check_target(Path(folder), layout, resume=resume, restart=restart)

    def key(self, record: Record) -> bytes:
        """What the records are to be sorted by. Every record passes here before the first is written.

        Raises RecordError (`missing-id`).
        """
        if not record.id:
            raise RecordError("missing-id", "a pack is in the order of the ids", "add a field id, uid or key")
        self._refuse_own(record)
        if not marked(record):  # its fields are no columns
            self.format.see(record)
        return record.id.encode("utf-8", "surrogatepass")

    def _refuse_own(self, record: Record) -> None:
        """Raise UsageError for what lies in the folder that is written: it might be replaced before it is read."""
        image = record.get("image")
        for path in (record.origin, self._images.path(image) if isinstance(image, str) else None):
            if path and _within(os.path.dirname(path), str(self._folder)):
                raise UsageError(f"-o {self._folder}: it is read from, too", "name another folder")

    def write(self, line: bytes, origin: str) -> None:
        """Add one record."""
        self._begin()
        if b'"error"' in line and Record.parse(line).get("error") is not None:
            self._counts["passed"] += 1
            return
        samples = samples_of(line, with_images=self.format.with_images)
        self._copies.check(samples)
        for sample in samples:
            self._add(sample)
        self._counts["records"] += 1

    def flush(self) -> None:
        """Nobody reads a shard while it is made."""

    def commit(self) -> None:
        """Finish the last shard, remove what an earlier pack had beyond it, and write the manifest."""
        self._begin()
        self._end_shard()
        for name in self._known.keys() - {shard.name for shard in self._shards}:
            remove(self._folder / name)
        self._manifest.finish(self._shards, self._counts)

    @property
    def results(self) -> list[str]:
        """What came of it, for a person."""
        samples, shards = self._counts["samples"], len(self._shards)
        return [f"  {samples:,} sample{'s' * (samples != 1)} in {shards:,} shard{'s' * (shards != 1)}"]

    def abort(self) -> None:
        """Leave the shards that are whole."""
        if self._open is not None:
            with contextlib.suppress(OSError):  # a full disk takes what is buffered no more than the rest
                self._open.close()
            self._open = None
        if self._begun:
            self._manifest.remove_unfinished()

    def _begin(self) -> None:
        """Make the folder. Not before there is something to write: the run's lock is held from then on."""
        if not self._begun:
            self._begun = True
            self._known = self._manifest.begin(restart=self._restart)

    def _add(self, sample: Sample) -> None:
        weight = self.format.weigh(sample)
        if self._open is not None and self._is_full(self._open, weight):
            self._end_shard()
        if self._open is None:
            self._open = self._begin_shard()
        self._open.add(sample, weight)
        self._counts["samples"] += 1
        if self.format.with_images and not sample.digest:
            self._counts["without_image"] += 1
            self._images.absent += 1

    def _is_full(self, shard: _Open, weight: int) -> bool:
        """Whether a sample of so many bytes belongs into the next shard. (One larger than a shard gets its own.)"""
        most = self._layout.max_size
        too_large = most is not None and self.format.ended(shard.weight + weight) > most
        return too_large or shard.count >= self._layout.max_count

    def _begin_shard(self) -> _Open:
        number = len(self._shards)
        if number == _MOST_SHARDS:
            raise ClipkitError(f"more than {_MOST_SHARDS:,} shards", "larger ones: --max-count, --max-size")
        name = f"{number:05d}{self.format.suffix}"
        known = self._known.get(name)
        if known is not None and size_of(self._folder / name) == known.size:
            return _Kept(known, self.format.seed, self._images)
        return self._fresh(name)

    def _fresh(self, name: str) -> _Fresh:
        part = part_of(self._folder / name)
        writer = self.format.open(part)
        return _Fresh(name, self.format.seed, part, writer, self._images, self._width)

    def _end_shard(self) -> None:
        shard = self._open
        if shard is None:
            return
        if isinstance(shard, _Kept) and not shard.same():
            shard = self._open = self._rewritten(shard)
        done = shard.finish()
        if isinstance(shard, _Fresh):
            target = self._folder / done.name
            if done.name in self._known:
                self._manifest.forget(done.name)
            if target.is_dir():
                remove(target)
            os.replace(shard.part, target)
            self._manifest.note(done)
        self._shards.append(done)
        self._open = None

    def _rewritten(self, kept: _Kept) -> _Fresh:
        """The shard that stands in for one that would not come out the same."""
        fresh = self._fresh(kept.shard.name)
        self._open = fresh
        for sample in kept.samples():
            fresh.add(sample, 0)
        kept.close()
        return fresh


@lru_cache(1024)
def _within(path: str, folder: str) -> bool:
    """Whether a path, once links are followed, is a folder or lies in it."""
    return os.path.join(os.path.realpath(path), "").startswith(os.path.join(folder, ""))


class _Open:
    """A shard that samples go to: how many, and a digest over all that decides its bytes."""

    def __init__(self, name: str, seed: str) -> None:
        self.name = name
        self.count = self.weight = 0
        self.first = self.last = ""
        self._digest = hashlib.blake2b(seed.encode(), digest_size=16)

    def add(self, sample: Sample, weight: int) -> None:
        self.first = sample.id if not self.count else self.first
        self.last = sample.id
        self.count += 1
        self.weight += weight
        decides = (sample.id, sample.json, sample.text, sample.suffix, sample.size, sample.digest)
        self._digest.update(msgspec.msgpack.encode(decides))

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def finish(self) -> Shard:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class _Fresh(_Open):
    """A shard that is being written."""

    def __init__(self, name: str, seed: str, part: Path, writer: Writer, images: Images, width: int) -> None:
        super().__init__(name, seed)
        self.part, self._writer, self._images, self._width = part, writer, images, width
        self._stem = name.partition(".")[0]

    def add(self, sample: Sample, weight: int) -> None:
        key = f"{self._stem}{self.count:0{self._width}d}"
        super().add(sample, weight)
        self._writer.add(key, sample, self._images.take(sample) if sample.digest else None)

    def finish(self) -> Shard:
        self._writer.finish()
        self.close()
        return Shard(self.name, self.count, size_of(self.part) or 0, self.first, self.last, self.digest)

    def close(self) -> None:
        self._writer.close()


class _Kept(_Open):
    """A shard that lies there already; its samples wait on disk in case it has to be written after all."""

    def __init__(self, shard: Shard, seed: str, images: Images) -> None:
        super().__init__(shard.name, seed)
        self.shard, self._images = shard, images
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(_SPOOLED)

    def add(self, sample: Sample, weight: int) -> None:
        super().add(sample, weight)
        self._images.forget(sample)
        data = msgspec.msgpack.encode(sample)
        self._file.write(_LENGTH.pack(len(data)) + data)

    def same(self) -> bool:
        return (self.count, self.digest) == (self.shard.count, self.shard.digest)

    def samples(self) -> Iterator[Sample]:
        self._file.seek(0)
        while head := self._file.read(_LENGTH.size):
            yield msgspec.msgpack.decode(self._file.read(_LENGTH.unpack(head)[0]), type=Sample)

    def finish(self) -> Shard:
        self.close()
        return self.shard

    def close(self) -> None:
        self._file.close()


class _Copies:
    """Notices a record called as a copy of another is: `a-1` beside the copies of `a`. Ids come sorted."""

    def __init__(self) -> None:
        self._copied: list[tuple[str, int]] = []  # those that ids to come may still begin with

    def check(self, samples: list[Sample]) -> None:
        """Raises ClipkitError."""
        name = samples[0].id if len(samples) == 1 else samples[0].id.removesuffix("-0")
        while self._copied and not name.startswith(self._copied[-1][0]):
            self._copied.pop()
        if len(samples) > 1:
            self._copied.append((name, len(samples)))
            return
        for copied, count in self._copied:
            tail = name.removeprefix(copied + "-")
            if tail != name and tail.isdecimal() and tail == str(int(tail)) and int(tail) < count:
                raise ClipkitError(
                    f"id {name!r} is also that of a copy of {copied!r}, of which there are {count}",
                    "rename one of them",
                )
