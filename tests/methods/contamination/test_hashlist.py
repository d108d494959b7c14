"""Lists of digests as sha256sum prints them, and as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipkit.errors import ClipkitError, UsageError
from clipkit.methods.contamination.hashlist import read

SHA = "0123456789abcdef" * 4
CODE = "00ff00ff00ff00ff"


@pytest.mark.parametrize(
    ("line", "method", "name"),
    [
        (SHA, "bytes", SHA),
        (SHA.upper(), "bytes", SHA),
        (f"{SHA}  val/a picture.jpg", "bytes", "val/a picture.jpg"),
        (f"{SHA} *val/b.jpg", "bytes", "val/b.jpg"),
        (f"{SHA}\tc.jpg", "bytes", "c.jpg"),
        (f"  {CODE} d.jpg  ", "phash", "d.jpg"),
        (f"a picture.jpg {CODE}", "phash", "a picture.jpg"),
        (f"e.jpg\t{CODE}", "phash", "e.jpg"),
        (f"\\{SHA}  a\\nb.jpg", "bytes", "a\\nb.jpg"),  # as sha256sum writes the name a, line end, b.jpg
        (f"\u732b.jpg {SHA}", "bytes", "\u732b.jpg"),
    ],
)
def test_lines(line: str, method: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"\ufeff# a comment\n\n{line}\r\n", encoding="utf-8", newline="")
    (digest,) = read(str(path))
    assert (digest.method, digest.name) == (method, name)
    assert digest.value == bytes.fromhex(SHA if method == "bytes" else CODE)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("d41d8cd98f00b204e9800998ecf8427e x.jpg", "got 32 hex digits"),
        ("a.jpg", "got 'a.jpg'"),
        (SHA[:-1], "got 63 hex digits"),
        (SHA[:-1] + "g", f"got '{SHA[:40]}...'"),
    ],
)
def test_a_line_that_holds_none_is_refused(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"{SHA}\n{line}\n")
    with pytest.raises(UsageError, match="expected 64") as caught:
        read(str(path))
    assert said in caught.value.message and caught.value.where == f"{path}:2"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(SHA.encode() + b" caf\xe9.jpg\n")
    assert [digest.name for digest in read(str(path))] == ["caf\ufffd.jpg"]
    path.write_bytes(b"\xff\xfe\x00\n")
    with pytest.raises(UsageError, match="expected 64"):
        read(str(path))


def test_a_folder_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(ClipkitError, match="cannot be read"):
        read(str(tmp_path))
