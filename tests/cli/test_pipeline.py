"""What the flags of a run may not say together, or of a place that isn't there."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipkit import cli

LINE = '{"id":"a"}\n'


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["-o", "x", "--rejects", "./x"], "-o and --rejects name one file: ./x"),
        (["-o", "x", "--report", "link"], "-o and --report name one file: link"),
        (["--rejects", "x", "--report", "x"], "--rejects and --report name one file: x"),
    ],
)
def test_two_outputs_in_one_file(
    flags: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text(LINE)
    Path("x").write_text("before")
    Path("link").symlink_to("x")
    assert cli.run(["cat", "a.jsonl", *flags]) == 2
    assert capsys.readouterr().err == f"clipkit cat: {said}\nhint: give each its own\n"
    assert Path("x").read_text() == "before"


def test_outputs_may_share_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text(LINE)
    assert cli.run(["cat", "a.jsonl", "-o", "/dev/null", "--rejects", "/dev/null", "--report", "/dev/null"]) == 0
    assert capsys.readouterr().err == ""
