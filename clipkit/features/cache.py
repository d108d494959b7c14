"""A content-addressed cache of vectors, so that `score | dedup | prune` encode once and warm equals cold.

One SQLite file in write-ahead mode. A cache is never worth a run: whatever goes wrong with it (a full disk, a read-only
folder, a lock that stays, damage) costs one warning, and the run goes on without. Losing rows is always allowed,
returning a wrong one never is: each row carries a checksum over its key and its bytes. Keep it on a local disk: the
log is shared by the processes of one machine, not over a network.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import sqlite3

    import numpy as np

FILE: Final = "vectors-1.sqlite"  # another layout gets another name, so that two versions can share a folder
RECIPE: Final = 1  # part of every key; raise it when decoding or preprocessing gives other pixels than before
BUSY_SECONDS: Final = 10.0  # how long to wait for another process before going on without a cache
PAGE: Final = 16384  # bytes; seven rows of 512 floats fit, where SQLite's 4096 would hold one and waste half
ROW_OVERHEAD: Final = 256  # bytes a row may take besides its vector: key, two indexes, b-tree slack
KEYS_PER_QUERY: Final = 500
SMALLEST: Final = 1_000_000  # bytes; a bound below it leaves no room for rows
HOUR: Final = 3600
"""Uses are recorded by the hour: reading a row again within the hour writes nothing."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS kinds (id INTEGER PRIMARY KEY, label TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS rows (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, kind INTEGER NOT NULL, used INTEGER NOT NULL,
    crc INTEGER NOT NULL, vector BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS by_use ON rows (used, kind);
"""


def _key(*parts: bytes) -> bytes:
    """32 bytes; each part is preceded by its length, so that no two lists of parts give the same input."""
    digest = hashlib.sha256(RECIPE.to_bytes(4, "little"))
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


def image_key(content_sha256: bytes, encoder_space: str, output: str, view: str, decode_mode: str) -> bytes:
    """The key of an image's vector: the file's bytes, `Encoder.space`, output (`joint`, `backbone`), view, decoding."""
    named = (encoder_space, output, view, decode_mode)
    return _key(b"image", content_sha256, *(name.encode() for name in named))


def text_key(text: str, encoder_space: str) -> bytes:
    """The key of a text's vector. The text is taken as it is: what the tokenizer makes of it is the encoder's."""
    return _key(b"text", text.encode("utf-8", "surrogatepass"), encoder_space.encode())


@dataclass(frozen=True)
class CacheStats:
    """What a cache holds: `rows` by label (a model and an output), and bytes on disk."""

    path: Path | None
    size: int
    max_bytes: int
    rows: dict[str, int] = field(default_factory=dict)


def warn_stderr(message: str) -> None:
    """The default for `warn`: one line on stderr."""
    print(f"clipkit: {message}", file=sys.stderr)


class Cache:
    """Vectors by key. Open one with `Cache.open`; without a folder, or once something failed, it holds nothing.

    Safe under several threads and several processes. The bound is on the bytes on disk, write-ahead log included; the
    least recently used rows go first, some hundreds at a time.
    """

    def __init__(
        self, folder: Path | None, max_bytes: int, warn: Callable[[str], None], clock: Callable[[], float]
    ) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._warn = warn
        self._clock = clock
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._presence: _Presence | None = None
        self._pending: dict[bytes, tuple[str, bytes]] = {}
        self._pending_bytes = 0
        self._read_again: set[bytes] = set()  # keys read in an hour later than the one on record
        # What the file may not grow into: room for the log, a quarter of it before a checkpoint is forced.
        self._reserve = max(max_bytes // 8, min(max_bytes // 2, 1 << 20))
        self._limit = (max_bytes - self._reserve) // PAGE  # pages of the file
        self._flush_bytes = min(4 << 20, self._reserve // 16)

    @classmethod
    def open(
        cls,
        folder: Path | None,
        max_bytes: int,
        *,
        warn: Callable[[str], None] = warn_stderr,
        clock: Callable[[], float] = time.time,
    ) -> Cache:
        """The cache in a folder, made where absent; `None` gives one that holds nothing. Never raises.

        max_bytes: the bound on disk; below 1 MB it is off. clock: seconds, for the order of eviction.
        """
        cache = cls(folder, max_bytes, warn, clock)
        if folder is not None and max_bytes >= SMALLEST:
            with cache._lock:
                cache._guarded(lambda: cache._connect(folder))
        return cache

    @property
    def off(self) -> bool:
        """Whether it was opened without a folder: it holds nothing and never will."""
        return self._folder is None

    def get_many(self, keys: Iterable[bytes]) -> dict[bytes, np.ndarray]:
        """The vectors known, f32 [d], read-only. A damaged row is a miss."""
        wanted = list(dict.fromkeys(keys))
        with self._lock:
            if self._db is None or not wanted:
                return {}
            found = {key: self._pending[key][1] for key in wanted if key in self._pending}
            missing = [key for key in wanted if key not in found]
            self._guarded(lambda: found.update(self._select(missing)))
        return {key: _vector(data) for key, data in found.items()}

    def put_many(self, rows: dict[bytes, np.ndarray], label: str) -> None:
        """Keep vectors, f32 [d]; `label` (`lite@1a2b3c joint`) is what `clipkit cache` counts them under.

        They are gathered and written some hundreds at a time: a killed run loses the last ones.
        """
        with self._lock:
            if self._db is None:
                return
            for key, vector in rows.items():
                data = vector.astype("<f4", copy=False).tobytes()
                if key not in self._pending:
                    self._pending_bytes += len(data) + ROW_OVERHEAD
                self._pending[key] = (label, data)
            if self._pending_bytes >= self._flush_bytes:
                self._guarded(self._flush)

    def stats(self) -> CacheStats:
        """Where it is, how large, and how many rows of which model; what is still gathered is written first."""
        with self._lock:
            if self._db is None or self._folder is None:
                return CacheStats(None, 0, self._max_bytes)
            rows: dict[str, int] = {}
            self._guarded(self._flush)
            counts = "SELECT label, count(*) FROM rows JOIN kinds ON kinds.id = kind GROUP BY kind ORDER BY label"
            self._guarded(lambda: rows.update(self._execute(counts)))
            return CacheStats(self._folder / FILE, self._size(), self._max_bytes, rows)

    def clear(self) -> None:
        """Forget everything and give the space back."""
        with self._lock:
            self._forget_pending()
            if self._db is not None:
                self._guarded(self._clear)

    def close(self) -> None:
        """Write what is still gathered. A closed cache holds nothing; closing twice is allowed."""
        with self._lock:
            if self._db is not None:
                self._guarded(self._flush)
                self._shut()

    # Everything below runs under the lock; what talks to SQLite runs inside _guarded.

    def _guarded(self, action: Callable[[], object]) -> None:
        """Run it; whatever fails costs one warning and the cache, never the run."""
        import sqlite3

        try:
            action()
        except (sqlite3.Error, OSError) as error:
            damaged = getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
            removed = damaged and self._presence is not None and self._presence.alone()
            self._shut(remove=removed)
            fate = "removed it" if removed else "run `clipkit cache clear` once nothing uses it" if damaged else None
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            self._warn(f"no cache in this run: {self._folder}: {reason}" + (f" ({fate})" if fate else ""))

    def _connect(self, folder: Path) -> None:
        import sqlite3

        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._presence = _Presence(folder / (FILE + ".lock"))
        first = self._presence.alone()
        self._db = sqlite3.connect(folder / FILE, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        if first:
            for pragma in (f"page_size={PAGE}", "auto_vacuum=INCREMENTAL", "journal_mode=WAL"):
                self._execute(f"PRAGMA {pragma}")
            self._db.executescript(_SCHEMA)
        self._presence.share()
        self._execute("PRAGMA synchronous=NORMAL")  # a power cut may lose rows; checksums find what it damages
        self._execute(f"PRAGMA wal_autocheckpoint={max(1, self._reserve // 8 // PAGE)}")
        self._execute("SELECT id FROM rows LIMIT 1")

    def _execute(self, sql: str, values: Iterable[Any] = ()) -> sqlite3.Cursor:
        assert self._db is not None
        return self._db.execute(sql, tuple(values))

    def _select(self, keys: list[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        hour = int(self._clock() // HOUR)
        for start in range(0, len(keys), KEYS_PER_QUERY):
            some = keys[start : start + KEYS_PER_QUERY]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, used, crc, vector FROM rows WHERE key IN ({marks})"  # noqa: S608 (question marks)
            for key, used, crc, data in self._execute(query, some):
                if len(data) % 4 == 0 and zlib.crc32(data, zlib.crc32(key)) == crc:
                    found[key] = data
                    if used < hour:
                        self._read_again.add(key)
        return found

    def _flush(self) -> None:
        """Write the gathered rows and uses, a few at a time so that the log stays within its share of the bound."""
        hour = int(self._clock() // HOUR)
        read_again, self._read_again = list(self._read_again), set()
        pending = list(self._pending.items())
        self._forget_pending()
        at_once = max(1, self._reserve // 16 // PAGE)
        for start in range(0, len(read_again), at_once):
            self._transact(partial(self._touch, read_again[start : start + at_once], hour))
        for rows in _portions(pending, self._flush_bytes):
            self._transact(partial(self._insert, rows, hour))
        self._shrink(self._limit)  # the bound was larger once

    def _forget_pending(self) -> None:
        self._pending.clear()
        self._pending_bytes = 0

    def _transact(self, action: Callable[[], None]) -> None:
        """Run it as one write transaction; not where the log is over its share and readers keep it from shrinking."""
        self._execute("BEGIN IMMEDIATE")
        if self._log_size() > self._reserve // 4:
            self._execute("COMMIT")
            self._execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._execute("BEGIN IMMEDIATE")
        try:
            if self._log_size() <= self._reserve // 4:
                action()
            self._execute("COMMIT")
        except BaseException:
            if self._db is not None and self._db.in_transaction:
                self._db.rollback()
            raise

    def _touch(self, keys: Iterable[bytes], hour: int) -> None:
        assert self._db is not None
        self._db.executemany("UPDATE rows SET used = ?1 WHERE key = ?2 AND used < ?1", [(hour, key) for key in keys])

    def _insert(self, rows: list[tuple[bytes, tuple[str, bytes]]], hour: int) -> None:
        assert self._db is not None
        needed = sum(len(data) + ROW_OVERHEAD for _, (_, data) in rows) * 3 // 2 // PAGE + 8
        if not self._make_room(needed):
            return
        kinds = {label: self._kind(label) for label in {label for _, (label, _) in rows}}
        values = [(key, kinds[label], hour, zlib.crc32(data, zlib.crc32(key)), data) for key, (label, data) in rows]
        statement = "INSERT OR REPLACE INTO rows (key, kind, used, crc, vector) VALUES (?, ?, ?, ?, ?)"
        self._db.executemany(statement, values)

    def _kind(self, label: str) -> int:
        """The number of a label. Not remembered between transactions: another process may have cleared the file."""
        self._execute("INSERT OR IGNORE INTO kinds (label) VALUES (?)", [label])
        return int(self._execute("SELECT id FROM kinds WHERE label = ?", [label]).fetchone()[0])

    def _make_room(self, pages: int) -> bool:
        """Evict the least recently used until `pages` more fit; False where they never will."""
        while self._pages() + pages > self._limit:
            step = max(16, self._number("SELECT count(*) FROM rows") // 64)
            delete = "DELETE FROM rows WHERE id IN (SELECT id FROM rows ORDER BY used, id LIMIT ?)"
            if self._execute(delete, [step]).rowcount == 0:
                return False
        return True

    def _shrink(self, pages: int) -> None:
        """Give free pages back until the file has at most `pages`."""
        surplus = self._number("PRAGMA page_count") - pages
        if surplus > 0 and self._db is not None:  # a script, since execute() would stop after one page
            self._db.executescript(f"PRAGMA incremental_vacuum({surplus})")
            self._execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _pages(self) -> int:
        return self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count")

    def _number(self, sql: str) -> int:
        return int(self._execute(sql).fetchone()[0])

    def _clear(self) -> None:
        self._execute("DELETE FROM rows")
        self._execute("DELETE FROM kinds")
        self._shrink(0)

    def _log_size(self) -> int:
        return _file_size(f"{self._folder}/{FILE}-wal")

    def _size(self) -> int:
        return sum(_file_size(f"{self._folder}/{FILE}{suffix}") for suffix in ("", "-wal", "-shm"))

    def _shut(self, remove: bool = False) -> None:
        import sqlite3

        self._forget_pending()
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):  # what could not be written is lost, which a cache may
                self._db.close()
            self._db = None
        if remove:
            for suffix in ("-wal", "-shm", ""):
                Path(f"{self._folder}/{FILE}{suffix}").unlink(missing_ok=True)
        if self._presence is not None:
            self._presence.leave()
            self._presence = None


class _Presence:
    """A lock file that every user of a cache holds shared, and whoever creates or removes the cache alone.

    Without it, removing a damaged file could pull the log away under another process. The kernel frees it.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def alone(self) -> bool:
        """Try to hold it alone, without waiting."""
        try:
            self._flock("LOCK_EX", "LOCK_NB")
        except BlockingIOError:
            return False
        return True

    def share(self) -> None:
        """Hold it with others; waits for one that is creating the cache, which takes milliseconds."""
        self._flock("LOCK_SH")

    def leave(self) -> None:
        os.close(self._file)

    def _flock(self, *flags: str) -> None:
        try:
            import fcntl
        except ImportError:  # Windows: SQLite's own locks remain
            return
        operation = 0
        for flag in flags:
            operation |= getattr(fcntl, flag)
        fcntl.flock(self._file, operation)


def _vector(data: bytes) -> np.ndarray:
    import numpy as np

    return np.frombuffer(data, "<f4")


def _file_size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except FileNotFoundError:
        return 0


def _portions(
    rows: list[tuple[bytes, tuple[str, bytes]]], max_bytes: int
) -> Iterable[list[tuple[bytes, tuple[str, bytes]]]]:
    """Consecutive pieces of at most max_bytes each (or one row)."""
    piece: list[tuple[bytes, tuple[str, bytes]]] = []
    size = 0
    for row in rows:
        piece.append(row)
        size += len(row[1][1]) + ROW_OVERHEAD
        if size >= max_bytes:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
