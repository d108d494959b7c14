"""Tars that were made to harm, as a source and as what references lead into."""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from clipkit.errors import ClipkitError, RecordError
from clipkit.images.opener import Opener
from clipkit.stream.sources import SourceOptions, open_source


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def whole(name: str, data: bytes) -> bytes:
    return header(name, len(data)) + data + bytes(-len(data) % 512)


def ids(path: Path) -> list[str | None]:
    return [item.id for item in open_source(SourceOptions((str(path),)), note=lambda message: None)]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("size", [1 << 60, 3 << 30])
def test_a_header_that_claims_to_be_huge(tmp_path: Path, kind: bytes, size: int) -> None:
    """The file has a hole as long as the smaller claim, so that nothing but a bound saves the memory."""
    path = tmp_path / "s.tar"
    path.write_bytes(whole("a.jpg", b"abc") + header("x", size, kind))
    os.truncate(path, 3 << 30)
    tracemalloc.start()
    with pytest.raises(ClipkitError, match=r"s\.tar: the tar is broken or cut off: a header that claims "):
        ids(path)
    opener = Opener(tmp_path)
    assert opener.read("s.tar#a.jpg") == b"abc"
    with pytest.raises(RecordError, match=r"^s\.tar#b\.jpg: no plain tar, or a broken one: a header that claims "):
        opener.read("s.tar#b.jpg")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def sparse_pax(name: str, version: tuple[str, str]) -> bytes:
    """A file of 8 GB that takes one block, as `tar --sparse --format=pax` writes it."""
    fields = {
        "GNU.sparse.major": version[0], "GNU.sparse.minor": version[1], "GNU.sparse.name": name,
        "GNU.sparse.realsize": "8000000000", "GNU.sparse.size": "8000000000",
        "GNU.sparse.map": "0,1", "GNU.sparse.numblocks": "1",
    }  # fmt: skip
    info = tarfile.TarInfo("GNUSparseFile/x")
    info.size, info.pax_headers = 512, fields
    return info.tobuf(tarfile.PAX_FORMAT) + b"1\n0\n1\n".ljust(512, b"\0")


@pytest.mark.parametrize("version", [("1", "0"), ("0", "1")])
def test_sparse_members_are_left_out(tmp_path: Path, version: tuple[str, str]) -> None:
    end = bytes(1024)
    (tmp_path / "s.tar").write_bytes(sparse_pax("big.txt", version) + whole("ok.jpg", b"abc") + end)
    assert ids(tmp_path / "s.tar") == ["s/ok"]
    assert Opener(tmp_path).read("s.tar#ok.jpg") == b"abc"
    with pytest.raises(RecordError, match="no regular file of that name"):
        Opener(tmp_path).read("s.tar#big.txt")


def test_messages_do_not_depend_on_where_the_tar_is(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as shard:
        info = tarfile.TarInfo("a.jpg")
        info.size = 2000
        shard.addfile(info, io.BytesIO(bytes(2000)))
    os.truncate(tmp_path / "s.tar", 1000)
    (tmp_path / "text.tar").write_bytes(b"no tar" * 500)
    for opener in (Opener(tmp_path), Opener(tmp_path, confine=True)):
        for ref in ("s.tar#a.jpg", "s.tar#zz.jpg", "text.tar#a", "../x.jpg", "none.jpg", "."):
            with pytest.raises(RecordError) as caught:
                opener.read(ref)
            assert str(tmp_path) not in f"{caught.value} {caught.value.hint}"
