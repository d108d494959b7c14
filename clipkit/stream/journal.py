"""The resume journal: an append-only log of outcomes by key, in which a torn tail is cut and damage is noticed.

File: a magic line, then frames of `<length><crc32><payload>`, little-endian. The first payload is the fingerprint
(JSON); every other is a 16-byte key and an Entry (msgpack). A later frame of the same key wins.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from array import array
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from clipkit.errors import ClipkitError
from clipkit.stream.ids import HashTable
from clipkit.stream.record import decode_json, encode_json

_MAGIC = b"clipkit journal 1\n"
_FRAME = struct.Struct("<II")
_KEY = 16
_DONE = b"done"  # the last frame's payload when a run came to its end
_DIGEST = re.compile("[0-9a-f]{16,}")  # says nothing to a person but that something is another
_SYNC_BYTES = 8 << 20  # fsync now and then: a kill loses nothing written, a power cut at most this much


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """What was decided of one record: `k`ept with its output lines, `d`ropped or `f`ailed with reasons; its `r`ow."""

    kind: str
    lines: list[tuple[str, bytes]] = []
    detail: list[Any] = []


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)


class Journal:
    """Outcomes of one run, on disk beside its output; `find` what an earlier run decided, `append` what this one does.

    `find` and `append` may be called from two threads.
    """

    def __init__(self, path: Path, fingerprint: dict[str, Any], *, resume: bool) -> None:
        """Open `path`; with `resume`, keep what it holds. Raises ClipkitError if it was written with other options."""
        self.path = path
        self._index = HashTable()  # of the frames that earlier runs wrote
        self._live = array("Q")  # where the frames lie that this run used or wrote
        self._live_bytes = 0
        self._unsynced = 0
        self._decided = False
        written = encode_json(fingerprint)
        self._header = _MAGIC + _frame(written)
        self._file: BinaryIO = open(path, "r+b" if resume and path.exists() else "w+b", buffering=0)
        try:
            self._size = self._load(decode_json(written)) if resume else 0  # a tuple was written as a list
            if not self._size:
                self._start(self._header)
        except BaseException:
            self._file.close()
            raise

    def _start(self, header: bytes) -> None:
        self._file.truncate(0)
        self._file.seek(0)
        self._write(header)
        self._size = len(header)

    def _load(self, fingerprint: dict[str, Any]) -> int:
        """Index the good frames and cut what follows them; the size that remains (0: nothing usable)."""
        with open(self.path, "rb") as file:
            magic = file.read(len(_MAGIC))
            if magic != _MAGIC:
                if magic.startswith(b"clipkit journal "):
                    raise ClipkitError(f"{self.path} was written by a newer clipkit", "--restart begins anew")
                if magic and not _MAGIC.startswith(magic):
                    raise ClipkitError(f"{self.path} is not a journal of clipkit", "move it away")
                return 0
            offset, good, first = len(_MAGIC), 0, True
            while (payload := _read_frame(file)) is not None:
                if payload == _DONE:
                    break  # what follows is this run's
                if first:
                    _same_run(self.path, decode_json(payload), fingerprint)
                    first = False
                else:
                    self._index.set(_hash(payload[:_KEY]), offset)
                offset += _FRAME.size + len(payload)
                good = offset
        self._file.truncate(good)
        self._file.seek(good)
        return good

    def __len__(self) -> int:
        return max(len(self._index), len(self._live))

    @property
    def useful(self) -> bool:
        """Whether a run that goes on would be spared more than failures, as far as this run or an earlier one knows."""
        return self._decided or len(self._index) > 0

    def find(self, key: bytes) -> Entry | None:
        """What an earlier run decided of the record with this 16-byte key, or None."""
        offset = self._index.get(_hash(key))
        if offset is None:
            return None
        payload = self._read(offset)
        if payload[:_KEY] != key:
            return None
        self._use(offset, len(payload))
        return _decoder.decode(payload[_KEY:])

    def append(self, key: bytes, entry: Entry) -> None:
        """Add an outcome; it survives a kill of this process from here on. Raises OSError if it cannot be written."""
        frame = _frame(key + _encoder.encode(entry))
        self._write(frame)
        self._decided |= entry.kind != "f"
        self._use(self._size, len(frame) - _FRAME.size)
        self._size += len(frame)
        self._unsynced += len(frame)
        if self._unsynced >= _SYNC_BYTES:
            os.fsync(self._file.fileno())
            self._unsynced = 0

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:  # a raw file may take less than it is given: on a disk that is nearly full, say
            rest = rest[self._file.write(rest) :]

    def _use(self, offset: int, size: int) -> None:
        self._live.append(offset)
        self._live_bytes += _FRAME.size + size

    def _read(self, offset: int) -> bytes:
        length, _ = _FRAME.unpack(os.pread(self._file.fileno(), _FRAME.size, offset))
        return os.pread(self._file.fileno(), length, offset + _FRAME.size)

    def close(self, *, keep: bool) -> None:
        """Release the file; without `keep`, or with nothing in it, remove it."""
        if self._file.closed:
            return
        keep = keep and len(self) > 0
        if keep:
            os.fsync(self._file.fileno())
        self._file.close()
        if not keep:
            self.path.unlink(missing_ok=True)

    def finish(self) -> None:
        """The run came to its end: say so; forget records that today's input lacks where they fill half the file."""
        if self._live_bytes >= (self._size - len(self._header)) // 2:
            self._write(_frame(_DONE))
            return
        fresh = self.path.with_name(self.path.name + ".new")
        with open(fresh, "wb") as file:
            file.write(self._header)
            for offset in self._live:
                file.write(_frame(self._read(offset)))
            file.write(_frame(_DONE))
        os.replace(fresh, self.path)


def unfinished(path: Path) -> bool:
    """Whether a journal of a run that did not come to its end lies at `path`."""
    done = _frame(_DONE)
    try:
        with open(path, "rb") as file:
            file.seek(-len(done), os.SEEK_END)
            return file.read() != done
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _frame(payload: bytes) -> bytes:
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _read_frame(file: BinaryIO) -> bytes | None:
    """The next payload, or None at the end or at the first sign of damage."""
    head = file.read(_FRAME.size)
    if len(head) < _FRAME.size:
        return None
    length, checksum = _FRAME.unpack(head)
    payload = file.read(length)
    return payload if len(payload) == length and zlib.crc32(payload) == checksum else None


def _hash(key: bytes) -> int:
    return int.from_bytes(key[:8], "little")


def _same_run(path: Path, was: dict[str, Any], now: dict[str, Any]) -> None:
    if was == now:
        return
    changed = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    told = ", ".join(_difference(name, was.get(name), now.get(name)) for name in changed[:3])
    raise ClipkitError(
        f"{path} belongs to a run with other options: {told}", "repeat that run's options, or --restart begins anew"
    )


def _difference(name: str, was: Any, now: Any) -> str:
    if all(isinstance(value, str) and _DIGEST.fullmatch(value) for value in (was, now)):
        return f"{name} changed"
    return f"{name} was {_short(was)}, is {_short(now)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else encode_json(value).decode()
    return text if len(text) <= 60 else text[:57] + "..."
