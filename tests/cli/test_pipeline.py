"""What the flags of a run may not say together, or of a place that isn't there."""

from __future__ import annotations

import os
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
        (["--rejects", "./a.jsonl"], "--rejects ./a.jsonl: that is an input"),
        (["--report", "a.jsonl"], "--report a.jsonl: that is an input"),
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["decontaminate", "a.jsonl", "--by", "bytes", "--against", "x", "-o", "x"], "-o and --against"),
        (
            ["decontaminate", "a.jsonl", "--by", "bytes", "--against", "e=x", "--overlaps", "x"],
            "--overlaps and --against",
        ),
        (["dedup", "a.jsonl", "--by", "url", "--against", "x", "-o", "./x"], "-o and --against"),
        (["dedup", "a.jsonl", "--by", "url", "--against", "@list", "-o", "x"], "-o and --against"),
        (["dedup", "a.jsonl", "--by", "url", "--against", "@list", "--report", "list"], "--report and --against"),
        (["dedup", "a.jsonl", "--by", "url", "--against", "[x]", "--rejects", "link"], "--rejects and --against"),
        (["join", "x", "a.jsonl", "-o", "link"], "-o and RIGHT"),
        (["balance", "a.jsonl", "--counts", "x", "--t", "1", "-o", "x"], "-o and --counts"),
        (["balance", "--plan", "--counts", "x", "-o", "x"], "-o and --counts"),
        (["balance", "a.jsonl", "--metadata", "x", "--t", "1", "--save-counts", "x"], "--save-counts and --metadata"),
        (["balance", "count", "a.jsonl", "--metadata", "x", "-o", "x"], "-o and --metadata"),
        (["concepts", "curve", "a.jsonl", "--counts", "x", "-o", "x"], "-o and --counts"),
    ],
)
def test_what_is_read_beside_the_sources_is_not_written_over(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text(LINE)
    Path("x").write_text(LINE)
    Path("list").write_text("x\n")
    Path("link").symlink_to("x")
    assert cli.run(words) == 2
    assert capsys.readouterr().err.endswith(f"{said} name one file: {words[-1]}\nhint: give each its own\n")
    assert (Path("x").read_text(), Path("list").read_text()) == (LINE, "x\n")
    assert not list(tmp_path.glob("*.part"))


def test_counts_are_not_written_over_by_their_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"id":"a","text":"a cat"}\n')
    assert cli.run(["concepts", "count", "a.jsonl", "--concepts", "cat,dog", "-o", "c.jsonl"]) == 0
    before = Path("c.jsonl").read_text()
    assert cli.run(["concepts", "tail", "c.jsonl", "-o", "c.jsonl"]) == 2
    assert Path("c.jsonl").read_text() == before


def test_outputs_may_share_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text(LINE)
    assert cli.run(["cat", "a.jsonl", "-o", "/dev/null", "--rejects", "/dev/null", "--report", "/dev/null"]) == 0
    assert capsys.readouterr().err == ""


def test_pipes_without_a_name_are_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `-o >(gzip > x)` of a shell gives them."""
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text(LINE + "{bad\n")
    pipes = {flag: os.pipe() for flag in ("-o", "--rejects", "--report")}
    flags = [word for flag, (_, written) in pipes.items() for word in (flag, f"/dev/fd/{written}")]
    assert cli.run(["cat", "a.jsonl", *flags, "--on-error", "skip"]) == 3
    said = {}
    for flag, (readable, written) in pipes.items():
        os.close(written)
        with open(readable) as pipe:
            said[flag] = pipe.read()
    assert said["-o"] == LINE and "{bad" in said["--rejects"] and '"failed":1' in said["--report"]


def test_a_root_that_is_not_there_fails_no_image_but_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"id":"a","image":"a.jpg"}\n')
    Path("out.jsonl").write_text(LINE)
    assert cli.run(["scan", "a.jsonl", "--size", "--root", "nowhere", "-o", "out.jsonl"]) == 2
    assert capsys.readouterr().err.startswith("clipkit scan: --root: there is no folder nowhere\n")
    monkeypatch.setenv("CLIPKIT_ROOT", "nowhere")
    assert cli.run(["scan", "a.jsonl", "--size", "-o", "out.jsonl"]) == 2
    assert capsys.readouterr().err.startswith("clipkit scan: CLIPKIT_ROOT: there is no folder nowhere\n")
    assert Path("out.jsonl").read_text() == LINE
    assert cli.run(["cat", "a.jsonl"]) == 0  # opens no image


@pytest.mark.parametrize("flags", [["--limit", "3"], ["--shard", "1/2"]])
@pytest.mark.parametrize(
    "words",
    [
        ["cluster", "--k", "2"],
        ["concepts", "count", "--concepts", "cat", "--by", "image"],
        ["decontaminate", "--against", "eval/"],
        ["prune", "--method", "density", "--keep", "1"],
        ["search", "a cat"],
    ],
    ids=lambda words: words[0],
)
def test_a_store_without_a_source_is_read_whole(
    words: list[str], flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store")
    assert cli.run(["embed", str(Path(__file__).parents[2] / "samples"), "--only", "image", "-q", "-o", store]) == 0
    capsys.readouterr()
    assert cli.run([*words, "--features", store, *flags]) == 2
    said = "there is no SOURCE: --limit and --shard are about one\nhint: where there is none the whole store is read\n"
    assert capsys.readouterr().err.endswith(said)
