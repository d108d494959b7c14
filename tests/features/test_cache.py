"""The vector cache: equal bytes back, a bound that holds, and no way to cost a run more than one warning."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clipkit.features import cache as module
from clipkit.features.cache import FILE, Cache, image_key, text_key

BOUND = 64 << 20
MB = 1_000_000


class Clock:
    """Hours that a test sets."""

    def __init__(self) -> None:
        self.hours = 1.0

    def __call__(self) -> float:
        return self.hours * 3600


def key(number: int) -> bytes:
    return text_key(str(number), "model")


def rows(numbers: range, dim: int = 512) -> dict[bytes, np.ndarray]:
    return {key(n): np.random.default_rng(n).normal(size=dim).astype(np.float32) for n in numbers}


def disk(folder: Path) -> int:
    """Bytes of the cache's files; one that vanishes meanwhile counts nothing."""
    total = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def refused(folder: Path | None, bound: int = BOUND) -> list[str]:
    """Use a cache as a run would, expecting that it holds nothing; the warnings it gave."""
    warnings: list[str] = []
    cache = Cache.open(folder, bound, warn=warnings.append)
    cache.put_many(rows(range(3)), "m")
    cache.get_many([key(0)])
    cache.stats()
    cache.close()
    cache.close()
    return warnings


@pytest.fixture(scope="module")
def shared() -> Iterator[Cache]:
    with tempfile.TemporaryDirectory() as folder:
        cache = Cache.open(Path(folder), BOUND)
        yield cache
        cache.close()


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.binary(min_size=32, max_size=32),
        hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32, allow_nan=True)),
        max_size=8,
    ),
    st.booleans(),
)
def test_what_comes_back_is_what_went_in_bit_for_bit(
    shared: Cache, put: dict[bytes, np.ndarray], written: bool
) -> None:
    shared.put_many(put, "m")
    if written:
        shared.stats()  # writes what was gathered, so that the rows come from the file
    got = shared.get_many(put)
    assert {k: v.tobytes() for k, v in got.items()} == {k: v.tobytes() for k, v in put.items()}
    assert all(v.dtype == np.float32 and v.ndim == 1 for v in got.values())


def test_rows_outlive_the_process(tmp_path: Path) -> None:
    put = rows(range(1500))
    first = Cache.open(tmp_path / "made" / "here", BOUND)
    first.put_many(put, "m")
    first.close()
    second = Cache.open(tmp_path / "made" / "here", BOUND)
    got = second.get_many([*put, key(9999)])
    assert got.keys() == put.keys()
    assert all(np.array_equal(got[k], put[k]) for k in put)
    assert second.stats().rows == {"m": 1500}
    second.close()


def test_every_part_of_a_key_counts() -> None:
    digest = b"\1" * 32
    parts = [
        image_key(digest, "lite/cpu", "joint", "plain", "scaled"),
        image_key(b"\2" * 32, "lite/cpu", "joint", "plain", "scaled"),
        image_key(digest, "lite/cuda", "joint", "plain", "scaled"),
        image_key(digest, "lite/cpu", "backbone", "plain", "scaled"),
        image_key(digest, "lite/cpu", "joint", "flip", "scaled"),
        image_key(digest, "lite/cpu", "joint", "plain", "exact"),
        image_key(digest, "lite/cpu", "jointp", "lain", "scaled"),
        text_key("a cat", "lite/cpu"),
        text_key("a cat\0", "lite/cpu"),
        text_key("\ud800", "lite/cpu"),  # half a surrogate pair, as `\ud800` in JSON gives
    ]
    assert len(set(parts)) == len(parts)
    assert {len(part) for part in parts} == {32}


def test_without_a_folder_it_holds_nothing_and_says_nothing() -> None:
    assert refused(None) == []


def test_the_bound_holds_and_the_least_recently_used_go_first(tmp_path: Path) -> None:
    clock = Clock()
    cache = Cache.open(tmp_path, 4 * MB, clock=clock)
    cache.put_many(rows(range(100)), "m")
    cache.stats()
    clock.hours = 2
    cache.put_many(rows(range(100, 200)), "m")
    cache.stats()
    clock.hours = 3
    assert len(cache.get_many(rows(range(50)))) == 50  # the first fifty are read again
    for start in range(200, 3000, 50):
        cache.put_many(rows(range(start, start + 50)), "m")
        held = cache.stats().rows["m"]
        assert disk(tmp_path) <= 4 * MB
        if held < start + 50:
            break  # the first eviction
    kept = cache.get_many(rows(range(200)))
    old = {n for n in range(200) if key(n) in kept}
    assert old >= set(range(50)), "rows read lately went before rows unread for longer"
    assert len(old) < 200
    cache.close()


def test_a_smaller_bound_shrinks_the_file(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path, BOUND)
    cache.put_many(rows(range(4000)), "m")
    cache.close()
    assert disk(tmp_path) > 8 * MB
    cache = Cache.open(tmp_path, 2 * MB)
    cache.put_many(rows(range(5000, 5010)), "m")
    assert cache.stats().size <= 2 * MB
    assert len(cache.get_many(rows(range(5000, 5010)))) == 10
    cache.close()


def test_clear_forgets_everything_and_gives_the_space_back(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path, BOUND)
    put = rows(range(3000))
    cache.put_many(put, "m")
    before = cache.stats().size
    cache.put_many({key(9000): next(iter(put.values()))}, "m")  # gathered, not yet written
    cache.clear()
    assert cache.get_many([*put, key(9000)]) == {}
    assert cache.stats().size < before / 20
    cache.put_many(put, "m")
    assert len(cache.get_many(put)) == 3000
    cache.close()


def test_one_row_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path, MB)
    cache.put_many({key(1): np.zeros(1 << 20, np.float32)}, "m")
    cache.put_many(rows(range(5, 8)), "m")
    stats = cache.stats()
    assert stats.rows == {"m": 3}
    assert stats.size <= MB
    cache.close()


def test_threads_share_one_cache(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path, BOUND)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for start in range(0, 400, 20):
            put = rows(range(start, start + 20), dim=600)
            cache.put_many(put, f"m{seed}")
            got = cache.get_many(put)
            wrong.extend(n for n in range(start, start + 20) if not np.array_equal(got[key(n)], put[key(n)]))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert sum(cache.stats().rows.values()) == 400
    cache.close()


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_cache import Cache, key, rows, MB
import numpy as np
cache = Cache.open(Path(sys.argv[1]), MB)
first = int(sys.argv[2]) * 100  # neighbours overlap by half
for start in range(first, first + 200, 10):
    put = rows(range(start, start + 10))
    cache.put_many(put, "m")
    lately = rows(range(max(0, start - 50), start + 10))
    for k, v in cache.get_many(lately).items():
        assert np.array_equal(v, lately[k])
    print(cache.stats().size, flush=True)
cache.close()
"""


def test_four_processes_write_within_a_bound_of_one_megabyte(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    here = str(Path(__file__).parent)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*command, str(n), here], **pipes) for n in range(4)]  # type: ignore[call-overload]
    sizes: list[int] = []
    for writer in writers:
        while line := writer.stdout.readline():
            sizes += [int(line), disk(tmp_path)]
    for writer in writers:
        _, said = writer.communicate(timeout=60)
        assert (writer.returncode, said) == (0, "")
    assert len(sizes) == 4 * 20 * 2
    assert max(sizes) <= MB
    cache = Cache.open(tmp_path, MB)
    found = cache.get_many(rows(range(500)))
    expected = rows(range(500))
    assert 20 < len(found) < 500
    assert all(np.array_equal(found[k], expected[k]) for k in found)
    cache.close()


def test_a_row_damaged_on_disk_is_a_miss(tmp_path: Path) -> None:
    put = rows(range(10))
    cache = Cache.open(tmp_path, BOUND)
    cache.put_many(put, "m")
    cache.close()
    data = bytearray((tmp_path / FILE).read_bytes())
    place = bytes(data).index(put[key(3)].tobytes())
    data[place + 100] ^= 1
    (tmp_path / FILE).write_bytes(data)
    warnings: list[str] = []
    cache = Cache.open(tmp_path, BOUND, warn=warnings.append)
    assert cache.get_many(put).keys() == put.keys() - {key(3)}
    cache.put_many({key(3): put[key(3)]}, "m")
    cache.close()
    cache = Cache.open(tmp_path, BOUND, warn=warnings.append)
    assert np.array_equal(cache.get_many([key(3)])[key(3)], put[key(3)])
    cache.close()
    assert warnings == []


@pytest.mark.parametrize("damage", ["noise", "head", "middle", "cut"])
def test_a_damaged_file_costs_one_warning_and_the_next_run_has_a_cache_again(tmp_path: Path, damage: str) -> None:
    put = rows(range(2000))
    cache = Cache.open(tmp_path, BOUND)
    cache.put_many(put, "m")
    cache.close()
    data = bytearray((tmp_path / FILE).read_bytes())
    noise = np.random.default_rng(0).bytes(len(data))
    spoiled = {
        "noise": noise,
        "head": bytes(data[:100]) + noise[100:16384] + bytes(data[16384:]),
        "middle": bytes(data[:16384]) + noise[16384:],
        "cut": bytes(data[: len(data) // 2]),
    }[damage]
    (tmp_path / FILE).write_bytes(spoiled)
    warnings: list[str] = []
    cache = Cache.open(tmp_path, BOUND, warn=warnings.append)
    got = cache.get_many(put)
    cache.put_many(put, "m")
    cache.close()
    assert all(np.array_equal(got[k], put[k]) for k in got)
    assert len(warnings) == 1, warnings
    assert "removed" in warnings[0]
    cache = Cache.open(tmp_path, BOUND, warn=warnings.append)
    cache.put_many(put, "m")
    assert len(cache.get_many(put)) == 2000
    cache.close()
    assert len(warnings) == 1


def test_a_damaged_file_that_another_process_uses_is_left_alone(tmp_path: Path) -> None:
    other = Cache.open(tmp_path, BOUND)
    other.put_many(rows(range(5)), "m")
    other.stats()
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    (tmp_path / FILE).write_bytes(b"x" * 40960)
    warnings = refused(tmp_path)
    assert len(warnings) == 1
    assert "clipkit cache clear" in warnings[0]
    assert (tmp_path / FILE).exists()
    other.close()


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert refused(tmp_path / "file") == [f"no cache in this run: {tmp_path / 'file'}: File exists"]
    assert len(refused(tmp_path / "file" / "below")) == 1
    assert (tmp_path / "file").read_text() == "not a folder"


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX users")
@pytest.mark.parametrize("filled", [False, True])
def test_a_folder_that_cannot_be_written(filled: bool) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        if filled:
            cache = Cache.open(folder, BOUND)
            cache.put_many(rows(range(5)), "m")
            cache.close()
            for path in folder.iterdir():
                path.chmod(0o444)
        folder.chmod(0o555)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may write anywhere
        try:
            warnings = refused(folder)
        finally:
            os.seteuid(user)
            folder.chmod(0o755)
    assert len(warnings) == 1
    assert "ermission denied" in warnings[0]


def test_a_cache_that_another_process_keeps_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Cache.open(tmp_path, BOUND).close()
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.1)
    holder = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    warnings = refused(tmp_path)
    holder.rollback()
    holder.close()
    assert len(warnings) == 1
    assert "locked" in warnings[0]


FULL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_cache import Cache, rows, BOUND
cache = Cache.open(Path(sys.argv[1]), BOUND)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # as a disk that is full
for start in range(0, 4000, 500):
    cache.put_many(rows(range(start, start + 500)), "m")
cache.close()
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource limits")
def test_a_full_disk_costs_one_line_on_stderr(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL, str(tmp_path), str(Path(__file__).parent)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stdout) == (0, "done\n")
    assert ran.stderr.startswith("clipkit: no cache in this run: ")
    assert ran.stderr.count("\n") == 1


def test_sqlite_is_loaded_only_when_a_cache_is_opened(tmp_path: Path) -> None:
    code = (
        "import sys; from clipkit.features.cache import Cache\n"
        "from pathlib import Path\n"
        "c = Cache.open(None, 1 << 30); c.put_many({}, 'm'); c.get_many([b'k']); c.close()\n"
        "assert not {'sqlite3', 'numpy'} & set(sys.modules), 'a cache that is off loads nothing'\n"
        f"Cache.open(Path({str(tmp_path)!r}), 1 << 30).close()\n"
        "assert 'sqlite3' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
