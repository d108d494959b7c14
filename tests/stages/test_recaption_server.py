"""recaption against a server, as a program: what is kept, what is said, how it stops and goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chat.server import Server, serving
from tests.conftest import InProcess, Runner

IN_ORDER = ("--concurrency", "1", "--workers", "1")
KEY = "sk-0123456789abcdef-never-to-be-seen"
RECIPE = 'name = "again"\nabout = "says it again"\nmethod = "rewrite"\nprompt = "{text}"\n'


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as some:
        yield some


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six captions, and a recipe that asks for the text itself."""
    (tmp_path / "again.toml").write_text(RECIPE)
    (tmp_path / "in.jsonl").write_text("".join(f'{{"id":"{n}","text":"dog {n}"}}\n' for n in range(6)))
    return tmp_path


def args(server: Server, name: str, *more: str) -> tuple[str, ...]:
    asked = ("--recipe", "./again.toml", "--server", server.address(name), "--server-model", "tiny")
    return ("recaption", "in.jsonl", *asked, *more)


def test_a_budget_stops_the_run_and_resume_pays_for_the_rest_alone(
    server: Server, clipkit: Runner, folder: Path
) -> None:
    budget = args(server, "fine", *IN_ORDER, "--max-tokens-total", "25", "-o", "out.jsonl")
    stopped = clipkit(*budget)
    assert stopped.code == 1 and not (folder / "out.jsonl").exists()
    assert "the budget of 25 tokens is spent" in stopped.stderr and "--resume" in stopped.stderr
    assert server.asked == ["dog 0", "dog 1", "dog 2"]
    assert clipkit(*budget, "--resume").code == 0
    assert server.asked == [f"dog {n}" for n in range(6)]
    whole = clipkit(*args(server, "fine"))
    assert (folder / "out.jsonl").read_text() == whole.stdout


def test_without_a_place_to_go_on_from_a_budget_still_gives_what_was_paid_for(
    server: Server, clipkit: Runner, folder: Path
) -> None:
    done = clipkit(*args(server, "fine", *IN_ORDER, "--max-tokens-total", "25"))
    assert done.code == 1
    assert [json.loads(line)["text"] for line in done.lines] == ["<dog 0>", "<dog 1>", "<dog 2>"]


def test_bad_answers_are_kept_with_their_error(server: Server, clipkit: Runner, folder: Path) -> None:
    out = args(server, "odd_fails", "-o", "out.jsonl")
    done = clipkit(*out)
    assert done.code == 3
    records = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [record.get("error", {}).get("type") for record in records] == [None, "chat-status-400"] * 3
    assert [record["text"] for record in records] == [f"<dog {n}>" if n % 2 == 0 else f"dog {n}" for n in range(6)]


@pytest.mark.parametrize(
    ("name", "code"), [("echo/401", 1), ("echo/302", 1), ("echo/500", 3), ("echo/200", 3), ("fine", 0)]
)
def test_the_key_is_written_nowhere(server: Server, clipkit: Runner, folder: Path, name: str, code: int) -> None:
    files = ("-o", "out.jsonl", "--resume", "--report", "report.json", "--rejects", "rejects.jsonl")
    done = clipkit(*args(server, name, "--retries", "0", *files), env={"CLIPKIT_API_KEY": KEY})
    assert done.code == code
    assert server.requests[0].fields["authorization"] == f"Bearer {KEY}"
    assert (folder / "out.jsonl.journal").exists() == (code != 1)
    said = done.stdout.encode() + done.stderr.encode()
    said += b"".join(path.read_bytes() for path in folder.iterdir())
    assert not [KEY[at : at + 8] for at in range(len(KEY) - 7) if KEY[at : at + 8].encode() in said]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_doesnt_wait_for_a_server_that_hangs(server: Server, folder: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-P", "-m", "clipkit", *args(server, "hang", "--timeout", "100", "-o", "out.jsonl")]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE) as process:
        try:
            while not server.requests and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(how)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[how]
    assert b"Traceback" not in err


def test_answers_behind_one_that_does_not_come_are_kept(server: Server, folder: Path, clipkit: Runner) -> None:
    """One of two turns hangs: of those that take the other, a next one is sent when the last one was read."""
    asked = args(server, "hangs_at/dog%200", "--concurrency", "2", "-o", "out.jsonl")
    command = [sys.executable, "-P", "-m", "clipkit", *asked, "--timeout", "100"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE) as process:
        try:
            while len(server.requests) < 6 and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130 and b"--resume" in err
    assert clipkit(*asked, "--resume").code == 0
    again = Counter(server.asked) - Counter({f"dog {n}": 1 for n in range(6)})
    assert again["dog 0"] == 1 and again.total() <= 2
    assert (folder / "out.jsonl").read_text() == clipkit(*args(server, "fine")).stdout


def test_a_budget_pays_for_nothing_twice_with_many_requests_at_once(
    server: Server, folder: Path, clipkit: Runner
) -> None:
    (folder / "in.jsonl").write_text("".join(f'{{"id":"{n}","text":"{n % 7}{n}"}}\n' for n in range(90)))
    asked = args(server, "slower_first", "--max-tokens-total", "400", "-o", "out.jsonl")
    assert clipkit(*asked).code == 1
    assert 40 <= len(server.asked) < 40 + 16  # what was begun is waited for
    assert clipkit(*asked, "--resume").code in (0, 1)
    assert clipkit(*asked, "--resume").code == 0
    assert len(server.asked) == len(set(server.asked)) == 90


def test_a_run_that_a_server_ended_goes_on(server: Server, clipkit: Runner, folder: Path) -> None:
    """The last of six answers asks for a long pause."""
    asked = args(server, "pauses_at/dog%205", *IN_ORDER, "-o", "out.jsonl")
    stopped = clipkit(*asked)
    assert stopped.code == 1 and "try again in 900 s" in stopped.stderr and "--resume" in stopped.stderr
    assert clipkit(*asked, "--resume").code == 0
    assert server.asked == [*(f"dog {n}" for n in range(6)), "dog 5"]


def test_another_recipe_is_another_run(server: Server, clipkit: Runner, folder: Path) -> None:
    budget = args(server, "fine", *IN_ORDER, "--max-tokens-total", "25", "-o", "out.jsonl")
    assert clipkit(*budget).code == 1
    (folder / "again.toml").write_text(RECIPE.replace("{text}", "in other words: {text}"))
    refused = clipkit(*budget, "--resume")
    assert refused.code == 1 and "other options: recipe was" in refused.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--server", "localhost:8000"), "expected http:// or https://"),
        (("--server", "http://me:secret@host/v1"), "an address without a name or password"),
        (("--price", "1"), "--price takes IN,OUT"),
        (("--max-tokens-total", "0"), "--max-tokens-total"),
        (("--set", "max_side=3"), "no parameter 'max_side'"),
        (("--recipe", "hq-clip", "--method", "rewrite"), "vlm"),
    ],
)
def test_a_wrong_option_is_said_in_a_line(
    server: Server, in_process: InProcess, folder: Path, more: tuple[str, ...], said: str
) -> None:
    done = in_process(*args(server, "fine"), *more, cwd=folder)
    assert done.code == 2 and said in done.stderr and "secret" not in done.stderr
    assert not server.requests
