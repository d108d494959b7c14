"""The program without a verb, and how a verb is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from clipkit import __version__, cli, verbs
from tests.conftest import Runner

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize("args", [[], ["--help"], ["--debug", "--help"]])
def test_root_help_lists_every_verb_once_under_its_heading(args: list[str], capsys: Captured) -> None:
    assert cli.run(args) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    for verb in verbs.builtins():
        (line,) = [line for line in lines if line.startswith(f"  {verb.name}  ")]
        assert line.endswith(verb.summary)
        headings = [text for text in lines[: lines.index(line)] if text and not text.startswith((" ", "Usage"))]
        assert headings[-1] == verb.group
    assert err == ""


def test_headings_come_in_the_order_of_commands(capsys: Captured) -> None:
    cli.run([])
    headings = [line for line in capsys.readouterr().out.splitlines() if line and not line.startswith((" ", "Usage"))]
    order = ["Ask a model", "Records", "Curate", "Adapt", "Measure", "Ship", "About"]
    known = [heading for heading in headings if heading in order]
    assert known == sorted(known, key=order.index)
    assert headings[-1] == "General"


def test_root_help_needs_no_typer() -> None:
    blocked = "import sys; sys.modules['typer'] = None; from clipkit import cli; sys.exit(cli.run(['--help']))"
    done = subprocess.run([sys.executable, "-P", "-c", blocked], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("Usage: clipkit VERB")


def test_version(clipkit: Runner) -> None:
    assert clipkit("--version").stdout == f"clipkit {__version__}\n"


@pytest.mark.parametrize("spelling", ["methods", "me-thods", "me_thods", "-methods"])
def test_hyphens_and_underscores_in_a_verbs_name_dont_matter(spelling: str, capsys: Captured) -> None:
    if spelling.startswith("-"):
        assert cli.run([spelling]) == 2
        return
    assert cli.run([spelling, "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: clipkit methods ")


def test_a_typo_gets_a_suggestion(capsys: Captured) -> None:
    assert cli.run(["metods", "--help"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("clipkit: no such verb: metods\nhint: Did you mean methods")


def test_nothing_close_points_at_help(capsys: Captured) -> None:
    assert cli.run(["qqqqq"]) == 2
    assert capsys.readouterr().err == "clipkit: no such verb: qqqqq\nhint: see: clipkit --help\n"


def test_an_option_before_the_verb(capsys: Captured) -> None:
    assert cli.run(["--json", "methods"]) == 2
    assert "hint: options come after the verb" in capsys.readouterr().err


def test_a_name_from_outside_cannot_drive_the_terminal(capsys: Captured) -> None:
    assert cli.run(["\x1b[31mred\udcff"]) == 2
    assert "\x1b" not in capsys.readouterr().err


FAMILY = [verb for verb in verbs.builtins() if " " in verb.name]


@pytest.mark.parametrize("verb", FAMILY, ids=lambda verb: verb.name)
def test_a_verb_of_two_words_is_typed_with_a_space_or_a_hyphen(verb: verbs.Verb) -> None:
    first, second = verb.name.split()
    for words in ([first, second], [f"{first}-{second}"], [first.replace("-", ""), second]):
        assert verbs.typed([*words, "--help", "x"]) == (verb, ["--help", "x"])


def test_a_verb_may_head_a_family() -> None:
    found, rest = verbs.typed(["cluster", "records.jsonl"])
    assert found is not None and (found.name, rest) == ("cluster", ["records.jsonl"])
    found, rest = verbs.typed(["cluster", "describe", "records.jsonl"])
    assert found is not None and (found.name, rest) == ("cluster describe", ["records.jsonl"])
    found, rest = verbs.typed(["cluster", "./describe"])  # a file of that name
    assert found is not None and found.name == "cluster"


def test_a_misspelt_second_word_is_not_taken_for_a_source(
    capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["cluster", "descibe", "a.jsonl"]) == 2
    said = "clipkit: no such verb, and no such source: cluster descibe\nhint: Did you mean cluster describe?\n"
    assert capsys.readouterr().err == said
    assert cli.run(["balance", "in.jsonl"]) == 2  # a file that is missing: its verb says what it needs
    assert "no such verb" not in capsys.readouterr().err
    assert cli.run(["balance", "--counts", "no.counts"]) == 2  # an option, however like a second word
    assert "no such verb" not in capsys.readouterr().err
    Path("descibe").touch()
    assert cli.run(["cluster", "descibe"]) == 2
    assert capsys.readouterr().err.startswith("clipkit cluster: how many clusters?")


def test_the_first_word_alone_says_what_can_follow(capsys: Captured) -> None:
    assert cli.run(["concepts", "--help"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("Usage: clipkit concepts VERB ") and err == ""
    for verb in verbs.family("concepts"):
        assert f"  {verb.name} " in out and verb.summary in out
    names = ", ".join(verb.name.split()[1] for verb in verbs.family("concepts"))
    assert cli.run(["concepts"]) == 2
    assert capsys.readouterr().err == f"clipkit concepts: expected one of {names}\nhint: see: clipkit concepts --help\n"
    assert cli.run(["concepts", "cuont", "a.jsonl"]) == 2
    said = f"clipkit concepts: expected one of {names}, not cuont\nhint: Did you mean concepts count?\n"
    assert capsys.readouterr().err == said
