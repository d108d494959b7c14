"""References to bytes: paths, tar members, data: URIs, and everything that must not be opened."""

from __future__ import annotations

import base64
import io
import os
import socket
import sys
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.errors import ClipkitError, RecordError
from clipkit.images.limits import Limits
from clipkit.images.opener import Opener


def kind(opener: Opener, ref: str) -> str:
    with pytest.raises(RecordError) as caught:
        opener.read(ref)
    return caught.value.kind


def write_tar(path: Path, members: list[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> None:
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


# Paths


def test_relative_paths_start_at_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "ü 1.jpg").write_bytes(b"abc")
    assert Opener(tmp_path).read("sub/ü 1.jpg") == b"abc"
    assert Opener(tmp_path / "nowhere").read(str(tmp_path / "sub" / "ü 1.jpg")) == b"abc"
    monkeypatch.chdir(tmp_path / "sub")
    opener = Opener()
    monkeypatch.chdir("/")  # the root is where the opener was made
    assert opener.read("ü 1.jpg") == b"abc"
    assert opener.path("ü 1.jpg") == tmp_path / "sub" / "ü 1.jpg"


def test_what_is_no_image_file(tmp_path: Path) -> None:
    opener = Opener(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("gone")
    assert kind(opener, "folder") == "image-not-a-file"
    assert kind(opener, "") == "image-not-a-file"
    assert kind(opener, "empty") == "image-empty"
    assert kind(opener, "gone") == kind(opener, "dangling") == kind(opener, "empty/x") == "image-missing"
    assert kind(opener, "nul\0byte") == kind(opener, "half \ud800 pair") == "image-missing"
    assert kind(opener, "loop") == kind(opener, "x" * 5000) == "image-unreadable"
    assert kind(opener, "/dev/zero") == "image-not-a-file"
    assert kind(opener, "file:///etc/hostname") == "image-missing"


def test_a_fifo_and_a_socket_never_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for name in ("fifo", "socket", "fifo.tar#x"):
            if name.endswith("x"):
                os.mkfifo(tmp_path / "fifo.tar")
            with ThreadPoolExecutor(1) as pool:
                error = pool.submit(Opener(tmp_path).read, name).exception(timeout=10)
            assert isinstance(error, RecordError)
            assert error.kind == "image-not-a-file"


def test_a_fifo_that_takes_the_place_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_bytes(b"abc")
    honest = os.stat(tmp_path / "file")
    monkeypatch.setattr("clipkit.images.opener.os.stat", lambda path: honest)
    assert kind(Opener(tmp_path), "fifo") == "image-not-a-file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"abc")
    (tmp_path / "secret").chmod(0)
    assert kind(Opener(tmp_path), "secret") == "image-unreadable"


def test_too_large(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(101))
    write_tar(tmp_path / "s.tar", [("a", bytes(101))])
    small = Limits(max_bytes=100)
    for ref in ("a", "s.tar#a", "data:," + "x" * 101, "data:;base64," + base64.b64encode(bytes(101)).decode()):
        assert kind(Opener(tmp_path, limits=small), ref) == "image-too-large"
        assert len(Opener(tmp_path, limits=Limits(max_bytes=101)).read(ref)) == 101


def test_messages_are_short_and_printable(tmp_path: Path) -> None:
    for ref in ("x" * 100_000, "data:image/png;base64,!" + "A" * 100_000, "a\n\x1b[31mb", "https://" + "h" * 9000):
        with pytest.raises(RecordError) as caught:
            Opener(tmp_path).read(ref)
        assert len(str(caught.value)) < 400
        assert str(caught.value).isprintable()


def test_out_of_descriptors_is_not_the_records_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(*_: object) -> int:
        raise OSError(24, "Too many open files")

    (tmp_path / "a").write_bytes(b"abc")
    monkeypatch.setattr("clipkit.images.opener.os.open", no_more)
    with pytest.raises(ClipkitError) as caught:
        Opener(tmp_path).read("a")
    assert not isinstance(caught.value, RecordError)


# Confinement


def test_confine(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "root-outside"
    root.mkdir()
    outside.mkdir()
    for folder in (root, outside):
        (folder / "a").write_bytes(b"abc")
        write_tar(folder / "s.tar", [("a", b"in tar")])
    (root / "inner").symlink_to("a")
    (root / "link").symlink_to(outside / "a")
    (root / "up").symlink_to(outside)
    (root / "t.tar").symlink_to(outside / "s.tar")
    opener = Opener(root, confine=True)
    for ref in ("a", "inner", "./a", "../root/a", str(root / "a")):
        assert opener.read(ref) == b"abc"
    assert opener.read("s.tar#a") == b"in tar"
    for ref in ("../root-outside/a", "link", "up/a", "/etc/hostname", "t.tar#a", str(outside / "s.tar") + "#a", ".."):
        assert kind(opener, ref) == "image-outside-root"
        assert opener.stamp(ref) == ""
    with pytest.raises(RecordError):
        opener.path("link")
    assert opener.read("data:,x") == b"x"
    assert Opener(root).read("link") == b"abc"


def test_confine_below_a_root_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("real")
    assert Opener(tmp_path / "link", confine=True).read("a") == b"abc"


# Members of tars


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_members_by_name(tmp_path: Path, format: int) -> None:
    long = "deep/" * 18 + "0002.jpg"
    members = [("0001.jpg", b"one"), (long, b"two" * 500), ("0001.txt", b"text"), ("./x#y.tar#z", b"odd")]
    write_tar(tmp_path / "s.tar", members, format)
    opener = Opener(tmp_path)
    for name, data in reversed(members):
        assert opener.read(f"s.tar#{name}") == data
    assert kind(opener, "s.tar#0003.jpg") == "image-missing"
    assert kind(opener, "none.tar#0001.jpg") == "image-missing"
    assert opener.path("s.tar#0001.jpg") is None


def test_the_last_of_equal_names_counts_and_others_than_files_do_not(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", [("a", b"old"), ("b", b"b"), ("a", b"new"), ("none", b"")])
    with tarfile.open(tmp_path / "s.tar", "a") as tar:
        for name, member_type, target in (("dir", tarfile.DIRTYPE, ""), ("link", tarfile.SYMTYPE, "/etc/hostname")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = member_type, target
            tar.addfile(info)
    opener = Opener(tmp_path)
    assert opener.read("s.tar#a") == b"new"
    assert kind(opener, "s.tar#dir") == kind(opener, "s.tar#link") == "image-missing"
    assert kind(opener, "s.tar#none") == "image-empty"


def test_a_hash_separates_only_after_tar_and_existing_files_win(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", [("a", b"member")])
    (tmp_path / "x#1.jpg").write_bytes(b"plain")
    opener = Opener(tmp_path)
    assert opener.read("x#1.jpg") == b"plain"
    assert opener.read("s.tar#a") == b"member"
    (tmp_path / "s.tar#a").write_bytes(b"file")
    assert opener.read("s.tar#a") == b"file"
    assert opener.path("s.tar#a") == tmp_path / "s.tar#a"
    (tmp_path / "d.tar#1").mkdir()
    write_tar(tmp_path / "d.tar#1" / "s.tar", [("a.tar#b", b"nested")])
    assert opener.read("d.tar#1/s.tar#a.tar#b") == b"nested"


def test_a_tar_that_changes_is_indexed_again(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", [("a", b"one")])
    opener = Opener(tmp_path)
    assert opener.read("s.tar#a") == b"one"
    stamp = opener.stamp("s.tar#a")
    write_tar(tmp_path / "new.tar", [("z", b"-" * 2000), ("a", b"two")])
    (tmp_path / "new.tar").replace(tmp_path / "s.tar")
    assert opener.read("s.tar#a") == b"two"
    assert opener.stamp("s.tar#a") != stamp


def test_broken_tars(tmp_path: Path) -> None:
    opener = Opener(tmp_path)
    (tmp_path / "text.tar").write_bytes(b"this is no tar" * 100)
    assert kind(opener, "text.tar#a") == "image-unreadable"
    with tarfile.open(tmp_path / "gz.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a"))
    assert kind(opener, "gz.tar#a") == "image-unreadable"
    write_tar(tmp_path / "cut.tar", [("a", b"1" * 1000), ("b", b"2" * 5000)])
    (tmp_path / "cut.tar").write_bytes((tmp_path / "cut.tar").read_bytes()[:4000])
    assert opener.read("cut.tar#a") == b"1" * 1000
    assert kind(opener, "cut.tar#b") == "image-unreadable"
    # a size below zero once sent tarfile back to where it came from, for ever
    write_tar(tmp_path / "back.tar", [("a", b"1" * 600), ("b", b"2")])
    data = bytearray((tmp_path / "back.tar").read_bytes())
    data[124:136] = b"\xff" * 10 + b"\xf8\x00"
    data[148:156] = b"%06o\0 " % sum([*data[:148], *b" " * 8, *data[156:512]])
    (tmp_path / "back.tar").write_bytes(data)
    assert kind(opener, "back.tar#a") in ("image-unreadable", "image-missing")


def test_many_tars_from_many_threads_with_few_kept_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipkit.images.shards._MAX_OPEN", 2)
    members = [(f"{n}.jpg", bytes([n]) * (n + 1)) for n in range(20)]
    for shard in range(6):
        write_tar(tmp_path / f"{shard}.tar", [(name, data + bytes([shard])) for name, data in members])
    opener = Opener(tmp_path)
    before = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    wanted = [(shard, name, data) for name, data in members for shard in range(6)] * 3
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda job: opener.read(f"{job[0]}.tar#{job[1]}"), wanted))
    assert got == [data + bytes([shard]) for shard, _, data in wanted]
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) <= before + 2


# Stamps


def test_stamps(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    os.utime(tmp_path / "a", ns=(1, 1_700_000_000_123_456_789))
    opener = Opener(tmp_path)
    assert opener.stamp("a") == "3:1700000000123456789"
    write_tar(tmp_path / "s.tar", [("x", b"12345"), ("y", b"1")])
    size, _, offset, length = opener.stamp("s.tar#y").split(":")
    assert (int(size), length) == ((tmp_path / "s.tar").stat().st_size, "1")
    assert (tmp_path / "s.tar").read_bytes()[int(offset)] == ord("1")
    for ref in ("gone", "s.tar#gone", "data:,x", "https://example.com/x.jpg", "nul\0", "gone.tar#x"):
        assert opener.stamp(ref) == ""


# data: URIs


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("data:,a%20b%00", b"a b\0"),
        ("data:image/png;base64,aGk=", b"hi"),
        ("data:image/png;base64,aGk", b"hi"),
        ("DATA:image/png;charset=x;BASE64,aG k%3D\n", b"hi"),
    ],
)
def test_data_uris(ref: str, expected: bytes) -> None:
    assert Opener().read(ref) == expected
    assert Opener().path(ref) is None


def test_broken_data_uris() -> None:
    assert kind(Opener(), "data:image/png;base64") == "image-unreadable"
    assert kind(Opener(), "data:image/png;base64,a!b") == "image-unreadable"
    assert kind(Opener(), "data:image/png;base64,a") == "image-unreadable"
    assert kind(Opener(), "data:,") == "image-empty"


@given(st.binary(min_size=1, max_size=100))
def test_data_uris_carry_any_bytes(data: bytes) -> None:
    assert Opener().read("data:image/x;base64," + base64.b64encode(data).decode()) == data
    assert Opener().read("data:image/x;base64," + quote(base64.b64encode(data), safe="")) == data
    assert Opener().read("data:image/x," + quote(data)) == data


@given(st.text(max_size=60) | st.text(alphabet="a./#tr:~\0\ud800", max_size=20))
def test_any_text_gives_bytes_or_a_typed_error(ref: str) -> None:
    for opener in (Opener("/nonexistent"), Opener("/nonexistent", confine=True)):
        for attempt in (opener.read, opener.path):
            try:
                attempt(ref)
            except RecordError as error:
                assert error.kind.startswith("image-")
        opener.stamp(ref)


def test_threads_share_an_opener(tmp_path: Path) -> None:
    for n in range(50):
        (tmp_path / str(n)).write_bytes(bytes([n]) * 1000)
    opener = Opener(tmp_path)
    barrier = threading.Barrier(8)

    def read(start: int) -> bool:
        barrier.wait()
        return all(opener.read(str(n % 50)) == bytes([n % 50]) * 1000 for n in range(start, start + 100))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))


def test_a_url_refused_before_is_tried_again_once_it_may_be_opened() -> None:
    url = "https://example.org/a.jpg"
    assert Opener().stamp(url) != Opener(remote=True).stamp(url)
    assert Opener().stamp("data:,x") == Opener(remote=True).stamp("data:,x") == ""
