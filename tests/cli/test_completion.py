"""TAB: what is offered, and that real shells ask for it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clipkit import verbs
from clipkit.completion import SCRIPTS, answer, candidates

ROOT = Path(__file__).resolve().parents[2]
FILES = {"bash": "clipkit.bash", "zsh": "_clipkit", "fish": "clipkit.fish"}


def values(*words: str) -> list[str]:
    return [value for value, _ in candidates(list(words))]


def test_verbs_are_offered_without_importing_one() -> None:
    program = (
        "import sys; from clipkit.completion import answer; print(answer(['']));"
        "print([name for name in sys.modules if name.startswith(('clipkit.commands.', 'typer'))])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    *offered, loaded = done.stdout.split("\n")[:-1]
    assert [line.split("\t")[0] for line in offered if line] == list(
        dict.fromkeys(verb.name.partition(" ")[0] for verb in verbs.builtins())
    )
    assert loaded == "[]"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["metho"], ["methods"]),
        (["--v"], ["--version"]),
        (["--debug", "metho"], ["methods"]),
        (["methods", "--js"], ["--json"]),
        (["methods", "--json", "--js"], []),  # given already
        (["methods", "dec"], ["decisions"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["completion", "bash", ""], []),
        (["zeroshot", "--on-error", ""], ["fail", "skip", "keep"]),
        (["zeroshot", "--on-error", "=", "f"], ["fail"]),  # as bash splits it
        (["zeroshot", "--on-error", "="], ["fail", "skip", "keep"]),
        (["zeroshot", "--on-error=f"], ["--on-error=fail"]),  # as zsh and fish leave it
        (["zero-shot", "-e", "--on-err"], ["--on-error"]),
        (["zeroshot", "photos/"], []),
        (["zeroshot", "--out", ""], []),
        (["no-such-verb", ""], []),
        (["conc"], ["concepts"]),
        (["concepts", "ta"], ["tail"]),
        (["concepts", "tail", "--by", "te"], ["text"]),
        (["cluster", "des"], ["describe"]),
        (["cluster", "--cent"], ["--centroids"]),
        (["cluster", "describe", "--cent"], ["--centroids"]),
    ],
)
def test_candidates(words: list[str], expected: list[str]) -> None:
    assert values(*words) == expected


def test_a_wrong_word_before_is_no_error() -> None:
    assert answer(["zeroshot", "--shard", "9/8", "--lim"]) in ("", answer(["zeroshot", "--lim"]))


@pytest.mark.parametrize("shell", SCRIPTS)
def test_committed_scripts_are_current(shell: str) -> None:
    committed = (ROOT / "completions" / FILES[shell]).read_text(encoding="utf-8")
    assert committed == SCRIPTS[shell], f"run: clipkit completion {shell} > completions/{FILES[shell]}"


@pytest.fixture
def on_path(tmp_path: Path) -> dict[str, str]:
    """An environment whose PATH has a `clipkit` that runs this Python's."""
    script = tmp_path / "bin" / "clipkit"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m clipkit "$@"\n')
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{script.parent}{os.pathsep}{os.environ['PATH']}", "TERM": "dumb"}


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("clipkit complet", "clipkit completion"),
        ("clipkit completion f", "clipkit completion fish"),
        ("clipkit methods --js", "clipkit methods --json"),
        ("clipkit zeroshot 'a b' --on-error=s", "clipkit zeroshot a b --on-error=skip"),
        ("clipkit zeroshot pho", "clipkit zeroshot photos/"),  # nothing of ours: bash's own file names
    ],
)
def test_bash_completes(typed: str, completed: str, on_path: dict[str, str], tmp_path: Path) -> None:
    """A real, interactive bash on a terminal: TAB is pressed, then the line that came of it is handed to printf."""
    (tmp_path / "photos").mkdir()
    script = shlex.quote(str(ROOT / "completions" / "clipkit.bash"))
    start_of_line = "\x01"
    keys = f"source {script}\n{typed}\t{start_of_line}printf '<%s>' \nexit\n"
    ours, theirs = os.openpty()
    with subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**on_path, "INPUTRC": os.devnull, "HISTFILE": os.devnull},
        cwd=tmp_path,
        start_new_session=True,
    ) as bash:
        os.close(theirs)
        os.write(ours, keys.encode())
        out, _ = bash.communicate(timeout=60)
    os.close(ours)
    printed = re.findall(r"<([^<>]*)>", out.decode())
    assert " ".join(printed) == completed


@pytest.mark.skipif(not shutil.which("fish"), reason="needs fish")
def test_fish_completes(on_path: dict[str, str]) -> None:
    script = f"source {ROOT / 'completions' / 'clipkit.fish'}; complete -C 'clipkit completion f'"
    command = ["fish", "--no-config", "-c", script]
    done = subprocess.run(command, env=on_path, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[0].split("\t")[0] == "fish"


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
def test_zsh_accepts_the_script() -> None:
    subprocess.run(["zsh", "-f", "-n", str(ROOT / "completions" / "_clipkit")], check=True, timeout=60)
