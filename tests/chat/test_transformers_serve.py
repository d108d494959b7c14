"""Against a real server: `transformers serve`, with tiny models made on the spot."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.chat.tiny_models import PICTURE, TEXT, WORDS
from tests.conftest import Runner

pytest.importorskip("transformers")
pytest.importorskip("uvicorn")
pytestmark = pytest.mark.slow

ONE_BY_ONE = ("--concurrency", "1")  # its seed is that of the process: requests at once would draw from one another


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that has both models and no network."""
    home = tmp_path_factory.mktemp("hub")
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(__file__).with_name("tiny_models.py")
    where = ("--host", "127.0.0.1", "--port", str(port), "--device", "cpu")
    command = [sys.executable, program, home / "hub", "serve", *where]
    with (
        (home / "log").open("wb") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + 180
            while not answers(f"http://127.0.0.1:{port}/health"):
                assert process.poll() is None and time.monotonic() < deadline, (home / "log").read_text()
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=10) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def test_captions_are_rewritten(server: str, clipkit: Runner, tmp_path: Path) -> None:
    lines = [json.dumps({"id": str(n), "text": f"a red dog {n}"}) for n in range(2)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    args = ("recaption", "in.jsonl", "--recipe", "laclip", "--server", server, "--server-model", TEXT)
    args += ("--set", "max_tokens=12", "--price", "1,2", "--report", "report.json", *ONE_BY_ONE)
    done = clipkit(*args)
    assert done.code == 0, done.stderr
    for line in done.lines:
        record = json.loads(line)
        original, *written = record["texts"]
        assert original == {"text": f"a red dog {record['id']}", "source": "original"}
        assert record["text"] == written[0]["text"]
        for caption in written:
            assert caption["source"].startswith("laclip/") and caption["model"] == TEXT
            assert set(caption["text"].split()) <= set(WORDS)
    counted = json.loads((tmp_path / "report.json").read_text())["facts"]["server"]
    assert counted["requests"] == 8 and counted["uncounted"] == 0
    assert counted["tokens_in"] > 8 * 60 and 8 <= counted["tokens_out"] <= 8 * 12
    assert counted["cost"] == pytest.approx((counted["tokens_in"] + 2 * counted["tokens_out"]) / 1e6)
    assert clipkit(*args).stdout == done.stdout  # this server keeps to the seed


def test_pictures_are_described(server: str, clipkit: Runner, tmp_path: Path) -> None:
    for colour in ("black", "white", "red"):
        Image.new("RGB", (50, 40), colour).save(tmp_path / f"{colour}.png")
    args = ("--method", "vlm", "--server", server, "--server-model", PICTURE, "--set", "max_tokens=12", *ONE_BY_ONE)
    done = clipkit("recaption", "black.png", "white.png", "red.png", *args)
    assert done.code == 0, done.stderr
    captions = [json.loads(line)["text"] for line in done.lines]
    assert all(set(caption.split()) <= set(WORDS) for caption in captions)
    assert len(set(captions)) > 1  # the likeliest words about different pictures: these were seen


def test_several_models_and_none_named(server: str, clipkit: Runner) -> None:
    done = clipkit("recaption", "--recipe", "laclip", "--server", server, stdin='{"text": "a dog"}\n')
    assert done.code == 2
    assert "has 2 models: name one by --server-model" in done.stderr and f"it has: {PICTURE}, {TEXT}" in done.stderr


def test_half_an_address(server: str, clipkit: Runner) -> None:
    args = ("--server", server.removesuffix("/v1"), "--server-model", TEXT)
    done = clipkit("recaption", "--recipe", "laclip", *args, stdin='{"text": "a dog"}\n')
    assert done.code == 1 and "status 404" in done.stderr and "/v1" in done.stderr
