"""References are read in one way, whoever asks; text for a terminal cannot drive it."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.images.opener import Opener
from clipkit.references import is_data, is_local, is_remote, shown, split_member
from clipkit.stream.sources.places import Places
from clipkit.terminal import printable


@pytest.mark.parametrize(
    ("reference", "data", "remote"),
    [
        ("data:,x", True, False),
        ("DATA:image/png;base64,aGk=", True, False),
        ("https://a/b.tar#c", False, True),
        ("S3://bucket/key", False, True),
        ("C://x.jpg", False, False),
        ("data/x.jpg", False, False),
        ("a:b.jpg", False, False),
    ],
)
def test_what_a_reference_is(reference: str, data: bool, remote: bool) -> None:
    assert (is_data(reference), is_remote(reference), is_local(reference)) == (data, remote, not (data or remote))


def test_which_hash_separates(tmp_path: Path) -> None:
    nested = "q.tar#d/y.tar#a.jpg"
    assert split_member("a#b.jpg", str(tmp_path)) == ("a#b.jpg", None)
    assert split_member(nested, str(tmp_path)) == ("q.tar", "d/y.tar#a.jpg")
    (tmp_path / "q.tar#d").mkdir()
    with tarfile.open(tmp_path / "q.tar#d/y.tar", "w") as shard:
        shard.addfile(tarfile.TarInfo("a.jpg"))
    assert split_member(nested, str(tmp_path)) == ("q.tar#d/y.tar", "a.jpg")
    assert Places(str(tmp_path)).id_of(nested) == "y/a"
    assert Opener(tmp_path).stamp(nested).endswith(":512:0")
    (tmp_path / "q.tar").touch()
    assert split_member(nested, str(tmp_path)) == ("q.tar", "d/y.tar#a.jpg")
    (tmp_path / "q.tar#d/y.tar#a.jpg").touch()
    assert split_member(nested, str(tmp_path)) == (nested, None)


def test_inline_images_have_an_id_whatever_the_case_of_their_scheme() -> None:
    assert Places("/").id_of("DATA:,x").startswith("data-")


@given(st.text() | st.text(alphabet="a\x1b\n\x9b\ud800\u202e\u3000 "))
def test_printable_text_is_one_harmless_line(text: str) -> None:
    for safe in (printable(text), shown(text)):
        assert all(char.isprintable() or char in "\u3000\xa0" or char.isspace() for char in safe)
        assert len(safe.splitlines()) <= 1
        safe.encode()
    assert len(shown(text * 400)) < 2500


def test_printable_text_stays_readable() -> None:
    assert printable("ein Café　猫") == "ein Café　猫"
    assert printable("a\x1b[31m\r\nb\ud800") == "a\\x1b[31m\\r\\nb\\ud800"
