"""What counts as one address and one caption."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.errors import RecordError
from clipkit.methods.dedupers.base import Look, equal
from clipkit.methods.dedupers.exact import Bytes, Text, Url, normalised_text, normalised_url
from clipkit.stream.record import Record


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("HTTP://User@EXAMPLE.com:80/a%7eb/%c3%a9?Q=%2f#top", "http://User@example.com/a~b/%C3%A9?Q=%2F"),
        ("https://example.com:443", "https://example.com/"),
        ("https://example.com:80/", "https://example.com:80/"),
        ("  http://[2001:DB8::1]:8080/x ", "http://[2001:db8::1]:8080/x"),
        ("http://example.com/?b=1&a=2", "http://example.com/?b=1&a=2"),
        ("http://example.com/A", "http://example.com/A"),
        ("not a url#x", "not a url#x"),
        ("http://[broken", "http://[broken"),
        ("http://example.com:port/", "http://example.com:port/"),
        ("", ""),
    ],
)
def test_urls(url: str, plain: str) -> None:
    assert normalised_url(url) == plain


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("  A\tRed \n bus ", "a red bus"),
        ("Straße", "strasse"),
        ("ﬁsh", "fish"),
        ("Ｆｕｌｌ", "full"),
        ("cafe\u0301", "caf\u00e9"),
        ("a\u00a0b", "a b"),
        ("a, b", "a, b"),
        (" \u3000 ", ""),
    ],
)
def test_texts(text: str, plain: str) -> None:
    assert normalised_text(text) == plain


@given(st.text())
def test_a_normal_form_is_its_own(text: str) -> None:
    assert normalised_text(normalised_text(text)) == normalised_text(text)
    assert normalised_url(normalised_url(text)) == normalised_url(text)


def test_keys_of_a_record() -> None:
    def key(method: type, **fields: object) -> bytes | None:
        return method({}).key(Look(Record(fields), None))

    assert key(Text, text="A bus") == key(Text, text="a  BUS") != key(Text, text="a car")
    assert key(Text, text=" ") == b""
    assert key(Text) is None
    assert key(Url, image="HTTPS://a.example") == key(Url, url="https://a.example/")
    assert key(Url, image="photos/a.jpg") is None
    with pytest.raises(RecordError, match="field 'text' is not a string"):
        key(Text, text=3)


def test_a_digest_counts_only_from_who_is_known_to_make_it() -> None:
    digest = hashlib.sha256(b"x").hexdigest()
    known = Record({"sha256": digest, "via": {"sha256": "scan"}})
    assert Bytes({}).key(Look(known, None)) == bytes.fromhex(digest)[:16]
    for via in ({}, {"sha256": "somebody"}):
        assert Bytes({}).key(Look(Record({"sha256": digest, "via": via}), None)) is None
    for value, via in (("zz" * 32, "scan"), (" 0" * 32, "scan"), (digest, ["scan"]), (digest, {}), (7, "scan")):
        assert Bytes({}).key(Look(Record({"sha256": value, "via": {"sha256": via}}), None)) is None


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"ab", b"\0b"]), st.booleans()), max_size=12))
def test_equal_keys_are_of_one_class(given_: list[tuple[bytes, bool]]) -> None:
    keys = np.array([list(key.ljust(16, b"\0")) for key, _ in given_], np.uint8).reshape(-1, 16)
    present = np.array([there for _, there in given_], bool)
    classes, representatives = equal(keys, present)
    for i, (one, here) in enumerate(given_):
        assert (classes[i] >= 0) == here
        for j, (other, there) in enumerate(given_):
            if here and there:
                assert (classes[i] == classes[j]) == (one == other)
    assert classes[representatives].tolist() == list(range(len(representatives)))
