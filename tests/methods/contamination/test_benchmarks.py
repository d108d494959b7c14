"""What `--against` names."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipkit.errors import UsageError
from clipkit.methods.contamination.benchmarks import parse


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd=name").mkdir()
    (tmp_path / "v1.5").mkdir()
    words = ["val.jsonl.zst", "data/test/", "odd=name", "v1.5", "coco=x/y=z.jsonl", "a/b=c.csv", "@lists/all.txt"]
    assert parse(words) == {
        "val": "val.jsonl.zst",
        "test": "data/test/",
        "odd=name": "odd=name",
        "v1.5": "v1.5",
        "coco": "x/y=z.jsonl",
        "b=c": "a/b=c.csv",
        "all": "@lists/all.txt",
    }
    assert parse(["."]) == {tmp_path.name: "."}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["=x.jsonl"], "takes EVAL or NAME=EVAL"),
        (["coco="], "takes EVAL or NAME=EVAL"),
        ([""], "takes EVAL or NAME=EVAL"),
        (["-"], "standard input is for records"),
        (["coco=-"], "standard input is for records"),
        (["a/val.jsonl", "b/val.csv"], "two benchmarks are called 'val'"),
        (["x=a.jsonl", "x=b.jsonl"], "two benchmarks are called 'x'"),
    ],
)
def test_names_that_cannot_be(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse(words)
