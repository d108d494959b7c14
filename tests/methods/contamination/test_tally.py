"""Counts of what overlapped, by hand."""

from __future__ import annotations

import pytest

from clipkit.methods.contamination import tally
from clipkit.methods.contamination.tally import Tally


def hit(name: str, item: str, by: str) -> dict[str, object]:
    return {"set": name, "id": item, "by": by, "distance": 0}


def test_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "MOST", 3)
    counted = Tally(
        {"one": ["phash", "semantic"], "two": ["phash"], "no": ["phash", "semantic"]}, {"one": 8, "two": 4, "no": 5}
    )
    counted.add([hit("one", "a", "phash"), hit("one", "a", "semantic"), hit("one", "b", "semantic")])
    counted.add([hit("one", "b", "phash"), hit("two", "a", "phash")])
    counted.add([hit("two", name, "phash") for name in "abc"])
    assert counted.facts() == {
        "one": {
            "items": 8,
            "records": 2,
            "items_met": 2,
            "by": {"phash": {"records": 2, "items_met": 2}, "semantic": {"records": 1, "items_met": 2}},
        },
        "two": {
            "items": 4,
            "records": 2,
            "items_met": 3,
            "at_least": True,
            "by": {"phash": {"records": 2, "items_met": 3, "at_least": True}},
        },
        "no": {
            "items": 5,
            "records": 0,
            "items_met": 0,
            "by": {"phash": {"records": 0, "items_met": 0}, "semantic": {"records": 0, "items_met": 0}},
        },
    }
    assert counted.lines() == [
        "  benchmark  by               records  its items that were met",
        "  one        phash                  2  2 of 8 (25 %)",
        "  one        semantic               1  2 of 8 (25 %)",
        "  one        any                    2  2 of 8 (25 %)",
        "  two        phash                  2  at least 3 of 4 (75 %)",
        "  no         phash, semantic        0  none of 5",
    ]


def test_all_of_them_is_not_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "MOST", 3)
    counted = Tally({"all": ["phash"]}, {"all": 3})
    counted.add([hit("all", name, "phash") for name in "abc"])
    assert counted.lines()[1] == "  all        phash        1  3 of 3 (100 %)"


def test_nothing_overlapped() -> None:
    assert Tally({"val": ["phash"]}, {"val": 1000}).lines() == [
        "  nothing overlapped",
        "  benchmark  by     records  its items that were met",
        "  val        phash        0  none of 1,000",
    ]
