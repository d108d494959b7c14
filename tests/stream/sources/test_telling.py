"""What kind of input some first bytes are."""

from __future__ import annotations

import pytest

from clipkit.stream.sources.inputs import kind_of_bytes


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0(\0\0\0", "image"),
        (b"BMW/series-3/1.jpg\nBMW/series-3/2.jpg\n", "lines"),
        (b"BM\n", "lines"),
        (b"BM", "lines"),
    ],
)
def test_a_bitmap_is_known_by_more_than_two_letters(head: bytes, kind: str) -> None:
    assert kind_of_bytes(head) == kind
