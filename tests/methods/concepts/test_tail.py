"""Counts that add up, and their tail: by hand, and over random parts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipkit.errors import ClipkitError, UsageError
from clipkit.methods.concepts.counts import Counts, read_counts
from clipkit.methods.concepts.tail import NameSink, tail
from clipkit.text.labels import parse_labels

NAMES = ("cat", "dog", "ant")
BOTH = ("text", "image", "both")
Pair = tuple[set[str], set[str]]


def counted(pairs: list[Pair], sides: tuple[str, ...] = BOTH, names: tuple[str, ...] = NAMES) -> Counts:
    counts = Counts(names, {"concepts": "c"}, sides)
    for text, image in pairs:
        counts.add(text, image)
    return counts


def written(path: Path, *parts: Counts) -> str:
    path.write_bytes(b"".join(row.encode() + b"\n" for part in parts for row in part.rows()))
    return str(path)


def test_by_hand() -> None:
    counts = counted(
        [
            ({"cat"}, {"cat"}),  # share one
            ({"cat", "dog"}, {"dog", "ant"}),  # share one
            ({"cat"}, {"dog"}),  # share none
            ({"cat"}, set()),  # share none
            (set(), {"dog"}),  # share none
            (set(), set()),  # counts in records alone
        ]
    )
    assert [row.to_dict() for row in counts.rows()] == [
        {"id": "cat", "concept": "cat", "records": 6, "text": 4, "image": 1, "both": 1},
        {"id": "dog", "concept": "dog", "records": 6, "text": 1, "image": 3, "both": 1},
        {"id": "ant", "concept": "ant", "records": 6, "text": 0, "image": 1, "both": 0},
        {"id": "*", "records": 6, "text": 4, "image": 4, "both": 2, "either": 5, "settings": {"concepts": "c"}},
    ]
    assert counts.misaligned == 3 / 5
    assert counted([(set(), set())]).misaligned is None
    assert counted([({"cat"}, set())], ("text",)).misaligned is None


some_pairs = st.lists(st.tuples(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES))), max_size=12)


@given(
    some_pairs, st.lists(st.integers(0, 2), min_size=12, max_size=12), st.sampled_from([BOTH, ("text",), ("image",)])
)
def test_parts_add_up(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[Pair], to: list[int], sides: tuple[str, ...]
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    parts = [counted([pair for pair, at in zip(pairs, to, strict=False) if at == part], sides) for part in range(3)]
    files = [written(folder / f"{at}.jsonl", part) for at, part in enumerate(parts)]
    joined = written(folder / "joined.jsonl", *parts)
    assert read_counts(files) == read_counts(files[::-1]) == read_counts([joined]) == counted(pairs, sides)


def of_part(part: str, *pairs: Pair) -> Counts:
    counts = counted(list(pairs))
    counts.parts = (part,)
    return counts


def test_parts_that_are_missing_and_parts_that_are_there_twice(tmp_path: Path) -> None:
    """Of two sets in halves, one in thirds, and one as a whole."""
    cat, dog = ({"cat"}, {"cat"}), ({"dog"}, {"dog"})
    halves = [of_part("1/2", cat), of_part("2/2", dog), of_part("1/2", cat, dog), of_part("2/2", cat, cat)]
    thirds = [of_part("3/3", cat), of_part("1/3", cat), of_part("2/3"), counted([cat])]
    every = written(tmp_path / "every.jsonl", *halves, *thirds)
    assert read_counts([every]).missing == [] and read_counts([every]).records == 9
    assert read_counts([written(tmp_path / "some.jsonl", *halves[1:], *thirds[2:])]).missing == ["1/2", "1/3", "3/3"]
    twice = [written(tmp_path / "one.jsonl", halves[0]), written(tmp_path / "two.jsonl", halves[1], halves[0])]
    with pytest.raises(ClipkitError, match=r"two\.jsonl: part 1/2 is there twice"):
        read_counts(twice)
    empty = written(tmp_path / "empty.jsonl", of_part("1/2"), of_part("1/2"))  # of two sets, say
    assert read_counts([empty]).missing == ["2/2"]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (counted([], names=("cat", "dog", "bee")), "'ant' is in one only"),
        (counted([], names=("dog", "cat", "ant")), "their order differs"),
        (counted([], ("text",)), "other rules (by)"),
        (Counts(NAMES, {"concepts": "c", "tags": {"threshold": 0.3}}, BOTH), "other rules (tags)"),
        (Counts(NAMES, {"concepts": "d"}, BOTH), "other rules (concepts)"),
    ],
)
def test_counts_by_other_rules_do_not_add_up(tmp_path: Path, other: Counts, said: str) -> None:
    one = written(tmp_path / "one.jsonl", counted([({"cat"}, {"cat"})]))
    with pytest.raises(ClipkitError) as caught:
        read_counts([one, written(tmp_path / "other.jsonl", other)])
    assert said in str(caught.value) and "other.jsonl" in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda lines: lines[:-1], "doesn't end with a row '*'"),
        (lambda lines: lines[-1:], "not those of one count"),
        (lambda lines: [lines[0], *lines], "not those of one count"),
        (lambda lines: [lines[0].replace('"text":1', '"text":"1"'), *lines[1:]], "'text' is not a count"),
        (lambda lines: [lines[0].replace('"text":1', '"text":true'), *lines[1:]], "'text' is not a count"),
        (lambda lines: [lines[0].replace('"text":1', '"text":-1'), *lines[1:]], "'text' is not a count"),
        (lambda lines: [lines[0].replace('"text":1', f'"text":{10**400}'), *lines[1:]], "'text' is not a count"),
        (lambda lines: [lines[0].replace('"records":1', '"records":2'), *lines[1:]], "not those of one count"),
        (lambda lines: [lines[0].replace('"concept":"cat",', ""), *lines[1:]], "'concept' is not a concept"),
        (lambda lines: [*lines[:-1], lines[-1].replace('{"id"', '{"part":"3/2","id"')], "not those of one count"),
        (lambda lines: [*lines[:-1], lines[-1].replace('{"id"', '{"part":2,"id"')], "not those of one count"),
        (lambda lines: ["{", *lines[1:]], "JSON"),
        (lambda lines: [], "no counts were read"),
    ],
)
def test_what_is_no_file_of_counts(tmp_path: Path, spoil: object, said: str) -> None:
    file = Path(written(tmp_path / "counts.jsonl", counted([({"cat"}, {"cat"})])))
    assert callable(spoil)
    file.write_text("".join(f"{line}\n" for line in spoil(file.read_text().splitlines())))
    with pytest.raises(ClipkitError, match=said.replace("*", r"\*")):
        read_counts([str(file)])


def test_the_rarest_first_ties_by_name() -> None:
    counts = counted([({"cat"}, {"dog"}), ({"cat"}, {"dog"}), ({"cat"}, {"cat"}), (set(), {"ant"})])
    assert [row.to_dict() for row in tail(counts, "text")] == [
        {"id": "ant", "concept": "ant", "count": 0, "frequency": 0.0},
        {"id": "dog", "concept": "dog", "count": 0, "frequency": 0.0},
        {"id": "cat", "concept": "cat", "count": 3, "frequency": 0.75},
    ]
    assert [row["concept"] for row in tail(counts, None)] == ["ant", "dog", "cat"]  # both: 0, 0, 1
    assert [row["concept"] for row in tail(counts, "image", count=2)] == ["ant", "cat"]
    assert [row["concept"] for row in tail(counts, "image", below=2)] == ["ant", "cat"]
    assert [row["concept"] for row in tail(counts, "image", below=3, count=1)] == ["ant"]
    with pytest.raises(UsageError, match="of text only"):
        tail(counted([({"cat"}, set())], ("text",)), "both")
    with pytest.raises(ClipkitError, match="no records"):
        tail(counted([]), None)


def test_names_as_a_label_file(tmp_path: Path) -> None:
    sink = NameSink(tmp_path / "tail.txt")
    for row in tail(counted([({"cat"}, set())]), "text"):
        sink.write(row.encode(), "")
    sink.commit()
    assert parse_labels(f"@{tmp_path / 'tail.txt'}").names == ("ant", "dog", "cat")
    for name in ("# sharp", "two\nlines"):
        sink = NameSink(tmp_path / "other.txt")
        with pytest.raises(UsageError, match="cannot be a line"):
            sink.write(json.dumps({"concept": name}).encode(), "")
        sink.abort()
    assert {path.name for path in tmp_path.iterdir()} == {"tail.txt"}
