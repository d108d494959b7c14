"""Fetching from a hub, which here is a server of this test's own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from clipkit.models import listing

FILES = {"/org/name/resolve/main/open_clip_pytorch_model.bin": b"weights"}
PROGRAM = """
import sys
from clipkit.errors import ClipkitError
from clipkit.models.download import hub_file
from clipkit.models.listing import hub_names
try:
    print(hub_file(sys.argv[1], hub_names(), "hf-hub:" + sys.argv[1]).read_bytes())
except ClipkitError as error:
    print(error.message)
"""


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for a file that it has, and for one that a repository lacks."""

    def do_HEAD(self) -> None:
        content = FILES.get(self.path)
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", '"0123"')
            self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(FILES.get(self.path, b""))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(repository: str, endpoint: str, cache: Path) -> str:
    settings = {"HF_ENDPOINT": endpoint, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-P", "-c", PROGRAM, repository]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **settings})
    return done.stdout.strip()


def test_fetched_once_then_found(hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository has no .safetensors: the next name is tried. What was fetched needs no server."""
    assert fetch("org/name", hub, tmp_path) == "b'weights'"
    assert fetch("org/name", "http://127.0.0.1:9", tmp_path) == "b'weights'"
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    found = listing.cached_in_hub("org/name", listing.hub_names())
    assert found is not None and found.name == "open_clip_pytorch_model.bin"


def test_a_repository_without_weights(hub: str, tmp_path: Path) -> None:
    said = fetch("org/other", hub, tmp_path)
    assert said.startswith("hf-hub:org/other is not on this machine and could not be downloaded from org/other")


def test_no_server(tmp_path: Path) -> None:
    assert "could not be downloaded from org/name" in fetch("org/name", "http://127.0.0.1:9", tmp_path)
