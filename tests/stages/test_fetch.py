"""`clipkit fetch`: what becomes of the records, in what order, and after a stop."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from clipkit.api import run
from clipkit.stages.fetch import Fetch
from clipkit.stream.record import Record
from tests.fetching.server import Server, picture, serving

ARGS = ("--to", "images", "--allow-private", "--per-host", "32", "--timeout", "10")


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as some:
        yield some


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def fetched(folder: Path, *records: dict[str, Any], **runtime: Any) -> list[dict[str, Any]]:
    config = {"to": str(folder), "allow_private": True}
    given = [Record.parse(json.dumps(record).encode()) for record in records]
    stage = Fetch(config, {"backoff": 0.01, "per_host": 32, **runtime})
    return [json.loads(record.encode()) for record in run(stage, given, on_error="keep")]


def test_what_a_record_becomes(server: Server, tmp_path: Path) -> None:
    url = server.url("png/1")
    (out,) = fetched(tmp_path / "to", {"id": "one", "image": url, "text": "a", "n": 1.0})
    data = picture("1", "PNG")
    path = Path(out.pop("image"))
    assert path.read_bytes() == data
    assert path.parent.parent == tmp_path / "to" and path.suffix == ".png"
    assert out == {
        "id": "one",
        "text": "a",
        "n": 1.0,
        "url": url,
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": 24,
        "height": 32,
        "fetch": {"status": 200, "bytes": len(data)},
        "via": dict.fromkeys(("sha256", "width", "height", "fetch"), "fetch"),
    }


def test_a_record_without_an_id_keeps_the_one_its_url_gave(server: Server, clipkit: Any, tmp_path: Path) -> None:
    urls = [server.url("fine/1"), server.url("fine/2")]
    result = clipkit("fetch", *ARGS, stdin="\n".join(urls))
    assert [json.loads(line)["id"] for line in result.lines] == urls
    again = clipkit("cat", stdin=result.stdout)
    assert [json.loads(line)["id"] for line in again.lines] == urls


def test_what_is_local_passes_as_it_is(clipkit: Any, tmp_path: Path) -> None:
    given = '{"image": "no/such.jpg", "x": 1.10}\n{"image":"s.tar#m"}\n{"image":"data:,x"}\n'
    result = clipkit("fetch", "--to", "images", stdin=given)
    assert (result.code, result.stdout) == (0, given)
    assert not (tmp_path / "images").exists()


def test_failures_keep_their_reason_and_the_record_as_it_came(server: Server, clipkit: Any) -> None:
    given = [{"image": server.url(path), "x": 1} for path in ("nothing/1", "fine/1", "html/1", "empty/1")]
    given += [{"image": "s3://b/k"}, {"text": "no image"}, {"image": 7}]
    result = clipkit("fetch", *ARGS, "--rejects", "bad.jsonl", stdin=lines(*given))
    assert result.code == 3
    out = [json.loads(line) for line in result.lines]
    kinds = [record.pop("error", {}).get("type") for record in out]
    expected = ["fetch-status-404", None, "fetch-format", "fetch-empty", "fetch-scheme", "missing-field", "bad-field"]
    assert kinds == expected
    assert [record for record, kind in zip(out, kinds, strict=True) if kind] == [given[0], *given[2:]]
    assert "7 read, 1 kept, 6 failed" in result.stderr


def test_a_missing_field_says_how_to_name_it(clipkit: Any) -> None:
    result = clipkit("fetch", "--to", "x", "--on-error", "fail", stdin='{"URL":"http://a/b"}\n')
    assert result.code == 1
    assert "--map image=THEIRS" in result.stderr


def test_the_address_doesnt_write_over_another(server: Server, tmp_path: Path) -> None:
    url = server.url("fine/1")
    same, other = fetched(tmp_path, {"image": url, "url": url}, {"image": url, "url": "http://page"})
    assert (same["url"], other["error"]["type"]) == (url, "field-exists")


def test_a_picture_that_was_replaced_is_noticed(server: Server, tmp_path: Path) -> None:
    url, digest = server.url("fine/1"), hashlib.sha256(picture("1")).hexdigest()
    good, bad = fetched(tmp_path, {"image": url, "sha256": digest.upper()}, {"image": url, "sha256": "0" * 64})
    assert (good["sha256"], bad["error"]["type"], bad["sha256"]) == (digest, "fetch-changed", "0" * 64)
    assert server.requests["/fine/1"] == 1


def test_same_bytes_with_one_or_many_at_once(server: Server, tmp_path: Path) -> None:
    paths = [f"slow/{i}" if i % 3 else f"nothing/{i}" for i in range(60)] + ["slow/1", "broken_once/503/x", "cut/1"]
    records = [{"id": str(i), "image": server.url(path)} for i, path in enumerate(paths)]
    results = []
    for i, at_once in enumerate((1, 32)):
        out = fetched(tmp_path / f"{i}", *records, concurrency=at_once)
        results.append([{**r, "image": r["image"].replace(f"{tmp_path}/{i}", "")} for r in out])
    assert results[0] == results[1]
    assert [r["id"] for r in results[0]] == [r["id"] for r in records]


def test_paths_hold_from_the_root(server: Server, clipkit: Any, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    args = ("--to", "data/images", "--root", "data", "--allow-private")
    (line,) = clipkit("fetch", *args, stdin=lines({"image": server.url("fine/1")})).lines
    image = json.loads(line)["image"]
    assert image.startswith("images/") and (tmp_path / "data" / image).is_file()
    assert clipkit("scan", "--size", "--root", "data", stdin=line).code == 0


def test_a_slow_one_in_front_holds_up_only_the_output(server: Server, tmp_path: Path) -> None:
    """The others are downloaded meanwhile, far more of them than a batch holds."""
    stage = Fetch({"to": str(tmp_path), "allow_private": True}, {"per_host": 32, "timeout": 60})
    paths = ["hang/1", *(f"fine/{i}" for i in range(300))]
    results = run(stage, [{"image": server.url(path)} for path in paths], on_error="keep")
    waiting = _Later(results)
    until = time.monotonic() + 30
    while sum(server.requests.values()) < 301 and time.monotonic() < until:
        time.sleep(0.01)
    assert sum(server.requests.values()) == 301
    stage.stop()
    waiting.join(30)
    assert not waiting.is_alive()


class _Later(threading.Thread):
    """Takes what a run yields, in a thread."""

    def __init__(self, results: Iterator[Record]) -> None:
        super().__init__(target=lambda: list(results), daemon=True)
        self.start()


def test_after_a_kill_nothing_is_downloaded_twice(server: Server, clipkit: Any, tmp_path: Path) -> None:
    paths = [f"slow/{i}" if i % 5 else f"nothing/{i}" for i in range(200)]
    (tmp_path / "in.jsonl").write_text(lines(*({"image": server.url(path), "i": path} for path in paths)))
    args = ["fetch", "in.jsonl", *ARGS, "--concurrency", "4", "-o", "out.jsonl"]
    command = [sys.executable, "-P", "-m", "clipkit", *args]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    journal = tmp_path / "out.jsonl.journal"
    until = time.monotonic() + 60
    while not (journal.exists() and journal.stat().st_size > 15_000) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    stopped_at = sum(server.requests.values())
    assert 20 < stopped_at < 200
    done = {path.stem for path in (tmp_path / "images").rglob("*.jpg")}
    result = clipkit(*args, "--resume")
    assert result.code == 3, result.stderr
    twice = [path for path, count in server.requests.items() if count > 1 and path.startswith("/slow")]
    assert len(twice) <= 4  # what was on its way
    assert len(done) + len(twice) >= 4
    assert not (tmp_path / "images/.unfinished").exists()
    resumed = (tmp_path / "out.jsonl").read_bytes()
    before = server.requests.copy()
    assert clipkit(*args, "--resume").code == 3
    assert server.requests == before
    fresh = clipkit("fetch", "in.jsonl", *ARGS, cwd=tmp_path)
    assert fresh.stdout.encode() == resumed


def test_a_file_that_vanished_is_fetched_again_and_failures_when_asked(
    server: Server, clipkit: Any, tmp_path: Path
) -> None:
    urls = [server.url(path) for path in ("fine/1", "broken_once/404/2", "fine/3")]
    (tmp_path / "in.jsonl").write_text(lines(*({"image": url} for url in urls)))
    args = ("fetch", "in.jsonl", *ARGS, "-o", "out.jsonl", "--resume")
    assert clipkit(*args).code == 3
    first = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    (tmp_path / first[0]["image"]).unlink()
    (tmp_path / first[2]["image"]).write_bytes(b"")
    assert clipkit(*args).code == 3
    assert (tmp_path / first[0]["image"]).read_bytes() == picture("1")
    assert (tmp_path / first[2]["image"]).read_bytes() == picture("3")
    assert server.requests == {"/fine/1": 2, "/broken_once/404/2": 1, "/fine/3": 2}
    assert clipkit(*args, "--retry-failed", "--retries", "0").code == 0
    assert server.requests == {"/fine/1": 2, "/broken_once/404/2": 2, "/fine/3": 2}


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_doesnt_wait_for_a_slow_server(server: Server, tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "in.jsonl").write_text(lines(*({"image": server.url(f"hang/{i}")} for i in range(50))))
    args = ["fetch", "in.jsonl", "--to", "images", "--allow-private", "--timeout", "100", "-o", "out.jsonl"]
    command = [sys.executable, "-P", "-m", "clipkit", *args]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE) as process:
        try:
            while not server.requests and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(how)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[how]
    assert b"Traceback" not in err


def test_another_run_is_not_disturbed_by_a_second_into_the_same_folder(server: Server, tmp_path: Path) -> None:
    records = [{"image": server.url(f"slow/{i}")} for i in range(30)]
    (tmp_path / "in.jsonl").write_text(lines(*records))
    command = [sys.executable, "-P", "-m", "clipkit", "fetch", "in.jsonl", *ARGS]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) for _ in range(2)]
    out = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert out[0] == out[1]
    for line in out[0].splitlines():
        Image.open(tmp_path / json.loads(line)["image"]).load()
    assert not (tmp_path / "images/.unfinished").exists()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "--to"),
        (("--to", "in.jsonl"), "--to in.jsonl is a file"),
        (("--to", "x", "--user-agent", "a\r\nb: c"), "--user-agent"),
        (("--to", "x", "--timeout", "0"), "--timeout"),
    ],
)
def test_usage(clipkit: Any, tmp_path: Path, args: tuple[str, ...], said: str) -> None:
    (tmp_path / "in.jsonl").write_text("")
    result = clipkit("fetch", "in.jsonl", *args)
    assert (result.code, result.stdout) == (2, "")
    assert said in result.stderr
