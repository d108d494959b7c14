"""Members of tar files by name: each tar's headers are walked once, then members are read where they lie."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from clipkit import tars
from clipkit.errors import RecordError
from clipkit.references import shown

_MAX_OPEN = 64  # file descriptors
_MAX_MEMBERS = 250_000  # about 60 MB of indexes


class _Shard:
    """One tar: an open descriptor and, per regular member, where its bytes lie. Closed when nobody uses it."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        status = os.fstat(self.descriptor)
        self.version = _version(status)
        self.end = status.st_size
        self.problem = ""
        self.members = self._index()

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)

    def _index(self) -> dict[str, tuple[int, int]]:
        """{name: (offset, size)}; of equal names the last counts, as when tar extracts."""
        found: dict[str, tuple[int, int]] = {}
        try:
            with os.fdopen(os.dup(self.descriptor), "rb") as file:
                for member in tars.members(file):
                    if tars.is_plain_file(member):
                        found[member.name] = (member.offset_data, member.size)
        except (*tars.BROKEN, OSError) as error:
            self.problem = str(error) or type(error).__name__
        return found

    def read(self, offset: int, size: int, ref: str) -> bytes:
        parts = []
        while size:
            part = os.pread(self.descriptor, size, offset)
            if not part:
                raise RecordError("image-unreadable", f"{shown(ref)}: the tar is cut off inside this member")
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return b"".join(parts)


class Shards:
    """The tars in use: the least recently used are closed and forgotten. Thread-safe.

    `ref` is what messages call a member: the reference as it was given, so that they don't depend on where the tar is.
    """

    def __init__(self) -> None:
        self._shards: OrderedDict[str, _Shard] = OrderedDict()
        self._indexing: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def locate(self, path: str, member: str, ref: str) -> tuple[int, int]:
        """Offset and size of a member. Raises RecordError (`image-missing`, `image-unreadable`) and OSError."""
        return self._find(self._shard(path), member, ref)

    def read(self, path: str, member: str, max_bytes: int, ref: str) -> bytes:
        """The bytes of a member, or the first `max_bytes` + 1 of a larger one. Raises as `locate` does."""
        shard = self._shard(path)
        offset, size = self._find(shard, member, ref)
        return shard.read(offset, min(size, max_bytes + 1), ref)

    def _find(self, shard: _Shard, member: str, ref: str) -> tuple[int, int]:
        found = shard.members.get(member)
        if found is None and shard.problem:
            raise RecordError("image-unreadable", f"{shown(ref)}: no plain tar, or a broken one: {shard.problem}")
        if found is None:
            raise RecordError("image-missing", f"{shown(ref)}: the tar has no regular file of that name")
        return found

    def _shard(self, path: str) -> _Shard:
        """The shard as it is now: a tar that changed is indexed again."""
        version = _version(os.stat(path))
        with self._lock:
            indexing = self._indexing.setdefault(path, threading.Lock())
        with indexing:
            with self._lock:
                shard = self._shards.get(path)
                if shard is not None and shard.version == version:
                    self._shards.move_to_end(path)
                    return shard
            shard = _Shard(path)
            with self._lock:
                self._shards[path] = shard
                self._shards.move_to_end(path)
                self._evict()
        return shard

    def _evict(self) -> None:
        members = sum(len(shard.members) for shard in self._shards.values())
        while len(self._shards) > 1 and (len(self._shards) > _MAX_OPEN or members > _MAX_MEMBERS):
            path, shard = self._shards.popitem(last=False)
            self._indexing.pop(path, None)
            members -= len(shard.members)


def _version(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
