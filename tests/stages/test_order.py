"""sort and shuffle: through the command line, as their order comes from the source."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from clipkit.api import run
from clipkit.errors import UsageError
from clipkit.stages.order import Shuffle, Sort, parse_order
from clipkit.stream.hashing import ticket
from clipkit.stream.record import Record
from clipkit.stream.spool import Ordered


def lines(count: int) -> list[str]:
    pick = random.Random(3)
    made = []
    for i in range(count):
        fields: dict[str, Any] = {"id": f"r{i}", "label": pick.choice("xyz")}
        if pick.random() < 0.8:
            fields["scores"] = {"clip": pick.choice([0.1, 0.2, 1, -3])}
        made.append(json.dumps(fields))
    return made


def test_shuffle_is_the_order_of_the_tickets(clipkit: Any, tmp_path: Path) -> None:
    given = lines(300)
    out = clipkit("shuffle", "--seed", "4", stdin="\n".join(given)).lines
    assert out == sorted(given, key=lambda line: ticket(json.loads(line)["id"], 4, "shuffle"))
    assert clipkit("shuffle", "--seed", "4", stdin="\n".join(given[::-1])).lines == out
    assert clipkit("shuffle", "--seed", "5", stdin="\n".join(given)).lines != out


def test_shuffled_places_are_uniform() -> None:
    """Where the first of 5 records goes, over seeds: each place about as often as the others."""
    given = [Record({"id": f"r{i}"}) for i in range(5)]
    places = [0] * 5
    for seed in range(1000):
        order = [record.id for record in Ordered(given, Shuffle({"seed": seed}).key)]  # type: ignore[union-attr]
        places[order.index("r0")] += 1
    assert all(abs(count - 200) < 64 for count in places)  # 5 sigma


def test_sort_equals_sorted(clipkit: Any) -> None:
    given = lines(300)

    def wanted(line: str) -> Any:
        record = json.loads(line)
        score = record.get("scores", {}).get("clip")
        return record["label"], score is None, -(score or 0), record["id"]

    expected = sorted(given, key=wanted)
    assert clipkit("sort", "--by", "label,-scores.clip", stdin="\n".join(given)).lines == expected
    assert clipkit("sort", "--by", "label", "--by", "-scores.clip", stdin="\n".join(given[::-1])).lines == expected


def test_equal_records_without_ids_stay_as_they_came(clipkit: Any) -> None:
    given = ['{"v":1,"n":%d}' % n for n in range(5)]
    assert clipkit("sort", "--by", "v", stdin="\n".join(given)).lines == given


@pytest.mark.parametrize("words", [("sort", "--by", "v"), ("shuffle",)], ids=" ".join)
def test_a_bad_line_stops_the_run_before_anything_is_written(words: tuple[str, ...], clipkit: Any) -> None:
    given = '{"v":1}\n{nonsense\n{"v":2}'
    stopped = clipkit(*words, stdin=given)
    assert stopped.code == 1 and stopped.stdout == "" and "stdin:2: " in stopped.stderr, stopped.stderr
    kept = clipkit(*words, "--on-error", "keep", stdin=given).lines
    assert len(kept) == 3 and json.loads(kept[-1])["line"] == "{nonsense"


def test_a_field_that_cannot_be_read_fails_its_record_alone(clipkit: Any) -> None:
    given = '{"id":"a","v":2}\n{"id":"b","v":1e999}\n{"id":"c","v":1}\n'
    done = clipkit("sort", "--by", "v", "--on-error", "keep", stdin=given)
    assert done.code == 3
    assert [json.loads(line)["id"] for line in done.lines] == ["c", "a", "b"]
    assert json.loads(done.lines[2])["error"]["type"] == "bad-json" and '"v":1e999' in done.lines[2]


@pytest.mark.parametrize("verb", [["sort", "--by", "v"], ["shuffle"]])
def test_parts_are_refused(clipkit: Any, verb: list[str]) -> None:
    done = clipkit(*verb, "--shard", "1/2", stdin="{}")
    assert done.code == 2 and "--shard" in done.stderr


def test_a_torn_input_gives_nothing_rather_than_a_wrong_order(clipkit: Any, tmp_path: Path) -> None:
    import gzip

    packed = gzip.compress("\n".join(lines(2000)).encode())
    (tmp_path / "in.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    done = clipkit("sort", "in.jsonl.gz", "--by", "label", "-o", "out.jsonl")
    assert done.code == 1 and not (tmp_path / "out.jsonl").exists()


def test_order_words() -> None:
    assert parse_order(["a,-b.c", "d"], False) == [("a", False), ("b.c", True), ("d", False)]
    assert parse_order(["a"], True) == [("a", True)]
    for words, desc in ((["-a"], True), ([","], False), (["-"], False)):
        with pytest.raises(UsageError):
            parse_order(words, desc)


def test_the_stage_alone_keeps_what_it_is_given() -> None:
    given = [Record({"id": "b", "v": 1}), Record({"id": "a"})]
    assert list(run(Sort({"by": [["v", False]]}), given)) == given
