"""Counts: of rows against a slow count, over parts against the whole, and through files."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter as Tally
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.errors import ClipkitError, UsageError
from clipkit.methods.balancers.counts import Counts, load_counts
from clipkit.methods.balancers.entries import Entries
from clipkit.methods.balancers.metaclip import Limits, limits_of
from clipkit.methods.balancers.rows import pack, sample_ticket, unpack
from clipkit.stream.spool import Rows

NAMES = [f"e{number}" for number in range(8)]
ENTRIES = Entries({"": NAMES})
SETTINGS = {"per": None, "per_language": False, "seed": None}
LANGUAGES = {"per": None, "per_language": True, "seed": None}
Record = tuple[str, list[tuple[bool, list[int]]]]  # language, and of each caption whether it is judged and its entries

captions = st.lists(st.tuples(st.booleans(), st.lists(st.integers(0, 7), unique=True, max_size=4)), max_size=3)
records_of = st.lists(st.tuples(st.sampled_from(["en", "de", "zh-Hant-TWXX"]), captions), max_size=20)


def count(records: Sequence[Record], settings: dict[str, Any], first: int = 0) -> Counts:
    per_language = settings["per_language"]
    with closing(Rows()) as rows:
        for number, (language, found) in enumerate(records, first):
            code = language.encode() if per_language else None
            rows.append("", pack(sample_ticket(f"r{number}"), code, found))
        return Counts.of(rows, ENTRIES, settings)


def as_found(counts: Counts) -> dict[str, list[int]]:
    return {language: found.tolist() for language, found in counts.found.items() if found.any()}


@given(st.sampled_from(["", "en", "zh-Hant-TWXX"]), captions)
def test_a_row_gives_back_what_is_judged(language: str, found: list[tuple[bool, list[int]]]) -> None:
    row = pack(sample_ticket("x"), language.encode() or None, found)
    assert unpack(row, per_language=bool(language)) == (language, [some if judged else [] for judged, some in found])
    assert len(row) == 8 + 12 * bool(language) + 4 * sum(1 + len(some) for _, some in found)


@given(records_of, st.booleans())
def test_rows_are_counted_as_a_tally_would(records: list[Record], per_language: bool) -> None:
    counts = count(records, LANGUAGES if per_language else SETTINGS)
    tally = Tally(
        (language if per_language else "", entry) for language, texts in records for _, some in texts for entry in some
    )
    assert as_found(counts) == {language: [tally[language, entry] for entry in range(8)] for language, _ in tally}
    judged = [[e for kept, some in texts if kept for e in some] for _, texts in records]
    assert counts.matched == sum(map(bool, judged)) == len(counts.lists)
    assert counts.lists.entries.tolist() == [e for some in judged for e in some]
    assert counts.texts == sum(len(texts) for _, texts in records)
    assert counts.complete


@given(records_of, st.booleans(), st.integers(0, 20), st.integers(0, 20))
def test_parts_add_up_to_the_whole(records: list[Record], per_language: bool, one: int, other: int) -> None:
    settings = LANGUAGES if per_language else SETTINGS
    low, high = sorted((min(one, len(records)), min(other, len(records))))
    parts = [count(records[a:b], settings, a) for a, b in ((0, low), (low, high), (high, len(records)))]
    for order in (parts, parts[::-1]):
        assert lines(Counts.merged(order)) == lines(count(records, settings))


def lines(counts: Counts) -> list[dict[str, Any]]:
    """What a file of them holds, but for languages in which nothing was found."""
    found = [record.to_dict() for record in counts.to_records()]
    found[0]["languages"] = sorted(as_found(counts))
    return found


def many(number: int) -> list[Record]:
    draw = np.random.default_rng(3)
    chances = 0.5 ** np.arange(1, 9)
    return [("", [(True, np.flatnonzero(draw.random(8) < chances).tolist())]) for _ in range(number)]


def test_a_sample_is_the_same_over_any_parts_and_estimates_within_its_error() -> None:
    records = many(4000)
    whole = count(records, SETTINGS)
    assert not whole.sampled(300).complete
    parts = [count(records[a : a + 1000], SETTINGS, a).sampled(300) for a in range(0, 4000, 1000)]
    merged = Counts.merged(parts).sampled(300)
    assert sorted(merged.tickets.tolist()) == sorted(whole.sampled(300).tickets.tolist())
    assert merged.tickets.max() == np.sort(whole.tickets)[299]
    for t in (5.0, 50.0, 300.0):
        limits = Limits({"": t})
        (exact, none), (estimate, error) = whole.expected(limits), merged.expected(limits)
        assert none == 0 < error
        assert abs(estimate.total - exact.total) < 4 * error


def test_the_stated_error_is_that_of_samples() -> None:
    """Over 200 samples of 100: their spread against the mean of what each says of itself, within a fifth."""
    whole, limits = count(many(1000), SETTINGS), Limits({"": 60.0})
    draw = np.random.default_rng(1)
    said, found = [], []
    for _ in range(200):
        some = draw.permutation(len(whole.lists))[:100]
        estimate, error = replace(whole, lists=whole.lists.take(some), tickets=whole.tickets[some]).expected(limits)
        said.append(error)
        found.append(estimate.total)
    spread = float(np.std(found))
    assert spread == pytest.approx(np.mean(said), rel=0.2)
    assert np.mean(found) == pytest.approx(whole.expected(limits)[0].total, abs=4 * spread / math.sqrt(200))


# Files


def written(path: Path, counts: Counts) -> str:
    data = b"".join(record.encode() + b"\n" for record in counts.to_records())
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


@given(records_of, st.booleans())
def test_a_file_gives_back_the_counts(tmp_path_factory: Any, records: list[Record], per_language: bool) -> None:
    settings = LANGUAGES if per_language else SETTINGS
    counts = count(records, settings)
    path = written(tmp_path_factory.mktemp("counts") / "a.counts.gz", counts)
    loaded = load_counts([path], ENTRIES, settings)
    assert lines(loaded) == lines(counts)
    if as_found(counts):
        limits = limits_of(counts.found, {"tail_mass": 0.3})
        assert loaded.expected(limits) == counts.expected(limits)


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    records: list[Record] = [("en", [(True, [0, 1])]), ("en", [(True, [2])])]
    path = written(tmp_path / "a.counts", count(records, SETTINGS))
    other = written(tmp_path / "b.counts", count(records, LANGUAGES))
    with pytest.raises(UsageError, match="other entries: @"):
        load_counts([path], Entries({"": ["e0"]}), SETTINGS)
    with pytest.raises(UsageError, match="made with --per-language, not with none of"):
        load_counts([path, other], ENTRIES, SETTINGS)
    with pytest.raises(UsageError, match="count the same records"):
        load_counts([path, path], ENTRIES, SETTINGS)
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load_counts([str(tmp_path / "none")], ENTRIES, SETTINGS)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found[1:], "holds no counts"),
        (lambda found: [], "holds no counts"),
        (lambda found: found[:-1], "damaged"),
        (lambda found: [found[0] | {"format": 2}, *found[1:]], "format 2"),
        (lambda found: [found[0], found[1] | {"count": -1}, *found[2:]], "damaged"),
        (lambda found: [found[0], found[1] | {"entry": "other"}, *found[2:]], "damaged"),
        (lambda found: [found[0], found[1] | {"lang": "de"}, *found[2:]], "damaged"),
        (lambda found: [*found[:-1], found[-1] | {"entries": [8]}], "damaged"),
        (lambda found: [*found[:-1], found[-1] | {"entries": []}], "damaged"),
        (lambda found: [*found[:-1], found[-1] | {"ticket": "no"}], "damaged"),
        (lambda found: [found[0] | {"records": None}, *found[1:]], "damaged"),
        (lambda found: [found[0] | {"metadata": 1}, *found[1:]], "damaged"),
        (lambda found: [found[0], 1], "damaged"),
    ],
)
def test_damaged_files_are_told(change: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "a.counts"
    counts = count([("", [(True, [0, 1])]), ("", [(True, [2])])], SETTINGS)
    found = change([record.to_dict() for record in counts.to_records()])
    path.write_text("".join(json.dumps(line) + "\n" for line in found))
    with pytest.raises(ClipkitError, match=said) as raised:
        load_counts([str(path)], ENTRIES, SETTINGS)
    assert str(path) in raised.value.message and raised.value.hint
