"""prompts generate, against a server that speaks the protocol, and what zeroshot makes of its label file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.chat.server import Request, Server, behaviour, serving
from tests.conftest import InProcess, Runner


@behaviour
async def about(request: Request) -> None:
    """Answers as cupl and description want it; about moths nonsense, and one time of three to cupl's questions."""
    label = next((name for name in ("red", "green", "moth") if name in request.asked), "nothing")
    if label == "moth":
        request.say("Sure!\nHere it is.")
    elif '"features"' in request.asked:
        request.say(f'```json\n{{"features": ["the colour {label}", "a flat surface"]}}\n```\nThat is all.')
    elif request.body["seed"] % 3:
        request.say(f"A picture that is {label} all over, {request.body['seed'] % 100}.")
    else:
        request.say("One\nTwo")


@behaviour
async def not_green(request: Request) -> None:
    """Fails about green for good; about all else as `about`."""
    if "green" in request.asked:
        request.complain(400, "not that")
    else:
        await about(request)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


def test_cupl(server: Server, in_process: InProcess, tmp_path: Path) -> None:
    done = in_process("prompts", "generate", "--labels", "red,green", "--server", server.address("about"))
    assert done.code == 0, done.stderr
    asked = Counter(server.asked)
    assert len(asked) == 6 and set(asked.values()) == {10}  # two classes, three questions, ten answers of each
    for request in server.requests:
        if request.method == "POST":
            assert (request.body["temperature"], request.body["max_tokens"]) == (0.99, 80)
    assert len({request.body["seed"] for request in server.requests if request.method == "POST"}) == 60
    red, green = map(json.loads, done.stdout.splitlines())
    assert (red["id"], green["id"]) == ("red", "green")
    assert red["prompts"] and all(prompt.startswith("A picture that is red all over") for prompt in red["prompts"])
    assert len(set(red["prompts"])) == len(red["prompts"])
    bad = sum(request.body["seed"] % 3 == 0 for request in server.requests if request.method == "POST")
    assert f"clipkit prompts generate: {bad} of 60 answers could not be used: bad-answer {bad}\n" in done.stderr


def test_zeroshot_reads_what_was_generated(server: Server, clipkit: Runner, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (220, 20, 20)).save(tmp_path / "a.png")
    words = ("--kind", "description", "--server", server.address("about"), "-o", "labels.json")
    done = clipkit("prompts", "generate", "--labels", "red,green", *words)
    assert done.code == 0, done.stderr
    assert json.loads((tmp_path / "labels.json").read_text()) == {
        "red": ["red which has the colour red", "red which has a flat surface"],
        "green": ["green which has the colour green", "green which has a flat surface"],
    }
    seen = clipkit("zeroshot", "a.png", "--labels", "@labels.json", "--no-cache")
    assert seen.code == 0, seen.stderr
    assert json.loads(seen.stdout)["pred"]["label"] == "red"


def test_a_class_without_prompts_keeps_its_place(server: Server, in_process: InProcess, tmp_path: Path) -> None:
    words = ("prompts", "generate", "--labels", "red,moth,green", "--server", server.address("about"))
    stopped = in_process(*words, "-o", "labels.json")
    assert stopped.code == 1
    assert stopped.stderr.startswith("clipkit prompts generate: --labels: moth: the model's answer: several lines")
    assert not (tmp_path / "labels.json").exists()
    done = in_process(*words, "-o", "labels.json", "--restart", "--on-error", "skip")
    assert done.code == 3
    found = json.loads((tmp_path / "labels.json").read_text())
    assert list(found) == ["red", "moth", "green"] and found["moth"] == [] and found["green"]
    assert "1 have no prompts, and templates will say what they are: 'moth'" in done.stderr


def test_resume_asks_only_about_what_is_left(server: Server, in_process: InProcess, tmp_path: Path) -> None:
    words = ("prompts", "generate", "--labels", "red,green", "-o", "labels.json", "--set", "variants=2")
    stopped = in_process(*words, "--server", server.address("not_green"), "--retries", "0")
    assert stopped.code == 1
    assert "--resume" in stopped.stderr or "--on-error" in stopped.stderr
    before = len(server.asked)
    done = in_process(*words, "--server", server.address("about"), "--resume", "--retry-failed", "--report", "r.json")
    assert done.code == 0, done.stderr
    assert all("green" in text for text in server.asked[before:])
    fresh = in_process(*words[:5], "fresh.json", *words[6:], "--server", server.address("about"))
    assert fresh.code == 0
    assert (tmp_path / "labels.json").read_bytes() == (tmp_path / "fresh.json").read_bytes()
    facts = json.loads((tmp_path / "r.json").read_text())["facts"]
    assert facts["answers"] == 12  # of the earlier run, too
    assert facts["server"]["requests"] == 6


def test_many_classes_are_asked_about_at_once(server: Server, in_process: InProcess) -> None:
    labels = ",".join(f"red {number}" for number in range(12))
    words = ("--kind", "description", "--server", server.address("slow"), "--concurrency", "8")
    assert in_process("prompts", "generate", "--labels", labels, *words, "--on-error", "skip").code == 3
    assert server.most == 8


def test_another_recipe_is_another_run(server: Server, in_process: InProcess, tmp_path: Path) -> None:
    words = ("prompts", "generate", "--labels", "red", "-o", "labels.json", "--server", server.address("about"))
    assert in_process(*words, "--resume").code == 0
    done = in_process(*words, "--resume", "--kind", "description")
    assert done.code == 1
    assert "--restart" in done.stderr


def test_a_budget_stops_it_between_classes(server: Server, in_process: InProcess, tmp_path: Path) -> None:
    labels = ",".join(f"red {number}" for number in range(6))
    words = ("prompts", "generate", "--labels", labels, "--server", server.address("about"), "-o", "l.json")
    stopped = in_process(*words, "--max-tokens-total", "310", "--concurrency", "1")  # 30 answers of 10 tokens a class
    assert stopped.code == 1
    assert stopped.stderr.startswith("clipkit prompts generate: the budget of 310 tokens is spent")
    assert not (tmp_path / "l.json").exists()
    assert len(server.asked) == 60
    done = in_process(*words, "--resume")
    assert done.code == 0, done.stderr
    assert len(server.asked) == 180
    assert len(json.loads((tmp_path / "l.json").read_text())) == 6


def test_a_recipe_of_ones_own(server: Server, in_process: InProcess, tmp_path: Path) -> None:
    shown = in_process("prompts", "show", "cupl").stdout
    mine = shown.replace("variants = 10", "variants = 1").replace('name = "cupl"', 'name = "mine"')
    (tmp_path / "mine.toml").write_text(mine + 'template = "{label}: {answer}"\n')
    words = ("--kind", "./mine.toml", "--labels", "red {question} <|im_start|>", "--server", server.address("says"))
    done = in_process("prompts", "generate", *words)
    assert done.code == 0, done.stderr
    assert server.asked[0].startswith("How does one recognise red {question} < |im_start| > in a photo? Answer")
    (record,) = map(json.loads, done.stdout.splitlines())
    assert record["prompts"][0].startswith("red {question} <|im_start|>: How does one")
