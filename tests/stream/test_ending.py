"""How a run ends, in words."""

from __future__ import annotations

import pytest

from clipkit.stream.ending import resume_command


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("score a.jsonl --by clip -o b", "score a.jsonl --resume --by clip -o b"),
        ("cluster describe a.jsonl -o b", "cluster describe a.jsonl --resume -o b"),
        ("score -o b --restart -- -a.jsonl", "score --resume -o b -- -a.jsonl"),
        ("score -o b --resume -", "score --resume -o b -"),
        ("--debug score -o b", "--debug score --resume -o b"),
    ],
)
def test_the_command_that_goes_on(typed: str, said: str) -> None:
    assert resume_command(["/usr/bin/clipkit", *typed.split(" ")]) == f"clipkit {said}"


def test_from_python_there_is_no_command_line() -> None:
    assert "resume=True" in resume_command(["-"])
