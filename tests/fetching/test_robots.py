"""X-Robots-Tag: for whom a directive is, and what it forbids."""

from __future__ import annotations

import pytest

from clipkit.fetching.robots import refusal


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        (["noai"], "noai"),
        (["all", "NOIMAGEAI"], "noimageai"),
        (["nofollow, noarchive"], None),
        (["none"], "none"),
        (["clipkit: noindex"], "noindex"),
        (["otherbot: noindex"], None),
        (["otherbot: noindex, noai"], None),
        (["otherbot: noindex, clipkit: noai"], "noai"),
        (["*: noai"], "noai"),
        (["otherbot: noindex", "noai"], "noai"),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], "noai"),
        (["max-snippet:20, max-image-preview:large"], None),
        (["otherbot: max-snippet:20, noai"], None),
        ([",,:,"], None),
    ],
)
def test_refusal(headers: list[str], expected: str | None) -> None:
    assert refusal(headers, frozenset({"clipkit"})) == expected
