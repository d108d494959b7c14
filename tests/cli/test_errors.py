"""What a verb raises to what a person and a shell see."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clipkit import cli
from tests.cli.plugin import install

CASES = {
    "clipkit_error": ("raise ClipkitError('no field x', 'name it', where='a.jsonl:17')", 1),
    "usage_error": ("raise UsageError('cannot be')", 2),
    "some_failed": ("return ExitCode.SOME_FAILED", 3),
    "nothing_left": ("return ExitCode.NOTHING_LEFT", 4),
    "interrupted": ("raise KeyboardInterrupt", 130),
    "terminated": ("raise Terminated", 143),
    "reader_closed": ("raise BrokenPipeError", 141),
    "missing_file": ("open('nowhere/x.txt')", 1),
    "missing_package": ("raise ModuleNotFoundError('No module named PIL', name='PIL.Image')", 1),
    "missing_extra": ("raise MissingPackage('pillow-heif', 'HEIC', 'pip install clipkit[heif]')", 1),
    "bug": ("raise ZeroDivisionError('by\\nzero')", 1),
    "nothing": ("return None", 0),
}
SAID = {
    "clipkit_error": "clipkit odd: a.jsonl:17: no field x\nhint: name it\n",
    "usage_error": "clipkit odd: cannot be\n",
    "missing_file": "clipkit odd: nowhere/x.txt: no such file or directory\n",
    "missing_package": "clipkit odd: this needs the package pillow, which is not installed\n"
    "hint: run: pip install pillow\n",
    "missing_extra": "clipkit odd: HEIC needs the package pillow-heif, which is not installed\n"
    "hint: run: pip install clipkit[heif]\n",
    "bug": "clipkit odd: unexpected ZeroDivisionError: by zero\n"
    "hint: this is a fault of clipkit: run it again with --debug and report what it prints\n",
}
VERB = '''"""Fail on purpose."""
from clipkit.errors import ClipkitError, ExitCode, MissingPackage, Terminated, UsageError

def run():
    {body}
'''


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Make `clipkit odd` do what a test says."""

    def make(body: str) -> None:
        install(tmp_path, monkeypatch, "clipkit-odd", {"odd": VERB.format(body=body)})

    return make


@pytest.mark.parametrize("case", CASES)
def test_exit_code_and_message(case: str, odd: object, capsys: pytest.CaptureFixture[str]) -> None:
    body, code = CASES[case]
    odd(body)  # type: ignore[operator]
    assert cli.run(["odd"]) == code
    assert capsys.readouterr() == ("", SAID.get(case, ""))


@pytest.mark.parametrize("where", [["--debug", "odd"], ["odd", "--debug"]])
def test_debug_shows_the_traceback(where: list[str], odd: object, capsys: pytest.CaptureFixture[str]) -> None:
    odd("raise ZeroDivisionError")  # type: ignore[operator]
    assert cli.run(where) == 1
    assert "Traceback" in capsys.readouterr().err


def test_debug_from_the_environment(
    odd: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    odd("raise ZeroDivisionError")  # type: ignore[operator]
    monkeypatch.setenv("CLIPKIT_DEBUG", "1")
    assert cli.run(["odd"]) == 1
    assert "Traceback" in capsys.readouterr().err


def process(*args: str, stdout: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "clipkit", *args]
    return subprocess.Popen(command, stdout=stdout, stderr=subprocess.PIPE, text=True)


def test_a_reader_that_goes_away_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with process("completion", "bash", stdout=writer) as running:
        os.close(writer)
        _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "wb") as full, process("completion", "bash", stdout=full.fileno()) as running:
        _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (1, "clipkit completion: no space left on device\n")


@pytest.mark.parametrize(
    ("closed", "verb", "code", "said"),
    [
        (">&-", "completion bash", 1, "clipkit completion: bad file descriptor\n"),
        (">&-", "cat a.jsonl", 1, "clipkit cat: bad file descriptor\n"),
        (">&-", "cat a.jsonl -o b.jsonl", 0, ""),
        ("2>&-", "cat a.jsonl", 0, ""),
        ("2>&-", "cat nothing", 2, ""),
        ("<&- >&- 2>&-", "cat a.jsonl -o b.jsonl", 0, ""),
    ],
)
def test_closed_streams(closed: str, verb: str, code: int, said: str, tmp_path: Path) -> None:
    line = '{"id":"a"}\n'
    (tmp_path / "a.jsonl").write_text(line)
    shell = f"{shlex.quote(sys.executable)} -P -m clipkit {verb} {closed}"
    done = subprocess.run(["sh", "-c", shell], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, said)
    assert done.stdout == (line if closed == "2>&-" and not code else "")
    assert "-o" not in verb or (tmp_path / "b.jsonl").read_text() == line


@pytest.mark.parametrize(("stop", "code"), [("KeyboardInterrupt", 130), ("Terminated", 143)])
@pytest.mark.parametrize("cause", ["stop", "None"])
def test_a_stop_that_a_library_wraps_is_still_a_stop(
    stop: str, code: int, cause: str, odd: object, capsys: pytest.CaptureFixture[str]
) -> None:
    body = (
        f"try:\n        raise {stop}\n"
        f"    except BaseException as stop:\n        raise ImportError('initialization failed') from {cause}"
    )
    odd(body)  # type: ignore[operator]
    assert cli.run(["odd"]) == code
    assert capsys.readouterr() == ("", "")


def test_wrong_value_of_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["completion", "tcsh"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == "clipkit completion: invalid value for 'shell': 'tcsh' is not one of 'bash', 'zsh', 'fish'"
    assert second == "hint: see: clipkit completion --help"


def test_missing_argument_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["completion"]) == 2
    first, _ = capsys.readouterr().err.splitlines()
    assert first == "clipkit completion: missing argument 'shell'. Choose from: bash, zsh, fish"


def test_close_spelling_of_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["methods", "--jsn"]) == 2
    assert capsys.readouterr().err == "clipkit methods: no such option: --jsn\nhint: Did you mean --json?\n"


@pytest.mark.parametrize(
    ("words", "meant"),
    [("concepts count --labels a", "--concepts?"), ("zeroshot --concepts a", "--labels?"), ("score --concepts a", "")],
)
def test_the_names_of_a_sister_verb(capsys: pytest.CaptureFixture[str], words: str, meant: str) -> None:
    assert cli.run(words.split()) == 2
    err = capsys.readouterr().err
    for flag in ("--labels?", "--concepts?"):
        assert (f"Did you mean {flag}" in err) == (flag == meant), err


def test_another_ctrl_c_while_it_leaves_is_no_traceback() -> None:
    script = """if True:
        import atexit, os, signal, sys
        from clipkit import cli
        atexit.register(os.kill, os.getpid(), signal.SIGINT)
        sys.argv = ["clipkit", "--version"]
        cli.main()
    """
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT and not done.stderr and done.stdout.startswith("clipkit")
