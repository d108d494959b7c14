"""Images from the network: what the guards refuse, against a real server on this machine."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest
from PIL import Image

from clipkit.errors import RecordError
from clipkit.images import remote
from clipkit.images.limits import Limits
from clipkit.images.opener import Opener

_buffer = io.BytesIO()
Image.new("RGB", (8, 8), "red").save(_buffer, "PNG")
PICTURE = _buffer.getvalue()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path == "/picture":
            self._answer(200, PICTURE)
        elif path == "/agent":
            self._answer(200, PICTURE if self.headers["User-Agent"].startswith("clipkit/") else b"")
        elif path == "/html":
            self._answer(200, b"<!doctype html><title>no</title>", {"Content-Type": "image/png"})
        elif path == "/to":
            self._answer(302, b"", {"Location": query})
        elif path == "/endless":
            self.send_response(200)
            self.end_headers()
            for _ in range(1000):
                self.wfile.write(PICTURE + bytes(1 << 16))
        elif path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", str(len(PICTURE) + 100))
            self.end_headers()
            self.wfile.write(PICTURE)
        elif path == "/drip":
            self.send_response(200)
            self.end_headers()
            for byte in PICTURE * 100:
                self.wfile.write(bytes([byte]))
                time.sleep(0.02)
        else:
            self._answer(404, b"")

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that hangs up is what these tests are about."""


@contextmanager
def _serving() -> Iterator[str]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with _serving() as url:
        yield url


def here(address: str) -> bool:
    """The guard's check, turned round for these tests: this machine and nothing else."""
    return address == "127.0.0.1"


def refusal(url: str, limits: Limits = Limits(), **options: object) -> RecordError:
    with pytest.raises(RecordError) as caught:
        remote.download(url, limits, **{"allowed": here, **options})
    return caught.value


def test_an_image_is_downloaded(server: str) -> None:
    assert remote.download(f"{server}/picture", allowed=here) == PICTURE
    assert remote.download(f"{server}/agent?x=1#part", allowed=here) == PICTURE


def test_redirects_are_followed_and_checked_again(server: str) -> None:
    assert remote.download(f"{server}/to?/picture", allowed=here) == PICTURE
    assert remote.download(f"{server}/to?{server}/to?/picture", allowed=here) == PICTURE
    assert "not a public address" in refusal(f"{server}/to?http://169.254.169.254/latest/meta-data").message
    assert "http://" in refusal(f"{server}/to?file:///etc/passwd").message
    assert "http://" in refusal(f"{server}/to?ftp://127.0.0.1/x").message


def test_redirects_in_a_circle_end(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Handler, "do_GET", lambda self: self._answer(302, b"", {"Location": self.path}))
    assert "more than 5 redirects" in refusal(f"{server}/round").message


def test_what_is_refused(server: str) -> None:
    assert refusal(f"{server}/html").kind == "image-format"
    assert "HTML" in refusal(f"{server}/html").message
    assert "404" in refusal(f"{server}/nothing").message
    assert refusal(f"{server}/picture", Limits(max_bytes=10)).kind == "image-too-large"
    assert refusal(f"{server}/endless", Limits(max_bytes=200_000)).kind == "image-too-large"
    assert refusal(f"{server}/cut").kind == "image-remote"
    assert refusal("http://127.0.0.1:1/x").kind == "image-remote"
    assert refusal("https://127.0.0.1:99999/x").kind == "image-remote"
    assert refusal("http:///x").kind == "image-remote"
    assert refusal(server.replace("http:", "https:") + "/picture").kind == "image-remote"  # no TLS there


def test_a_slow_server_is_ended_by_the_clock(server: str) -> None:
    started = time.monotonic()
    error = refusal(f"{server}/drip", total_seconds=0.3)
    assert error.kind == "image-remote"
    assert time.monotonic() - started < 10  # the whole drip would take 15 s or more


def test_the_connection_goes_to_the_address_that_was_checked(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads elsewhere when it is asked again (DNS rebinding) gains nothing."""
    port = int(server.rpartition(":")[2])
    asked: list[str] = []

    def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "10.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(remote.socket, "getaddrinfo", resolve)
    reached: list[tuple[str, int]] = []

    def connecting(address: tuple[str, int], timeout: float) -> socket.socket:
        reached.append(address)
        plain = socket.socket()
        plain.settimeout(timeout)
        plain.connect(address)
        return plain

    monkeypatch.setattr(remote.socket, "create_connection", connecting)
    assert remote.download(f"http://pictures.example:{port}/picture", allowed=here) == PICTURE
    assert (asked, reached) == (["pictures.example"], [("127.0.0.1", port)])


def test_one_forbidden_address_of_a_name_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", (address, 80)) for address in ("127.0.0.1", "10.0.0.1")]
    monkeypatch.setattr(remote.socket, "getaddrinfo", lambda *_, **__: found)
    assert "10.0.0.1" in refusal("http://pictures.example/x").message


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "0.0.0.0", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1"),
        *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"),
    ],
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not remote.is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_that_are_public(address: str) -> None:
    assert remote.is_public(address)


def test_the_opener_asks_first_and_guards_then(server: str) -> None:
    with pytest.raises(RecordError) as caught:
        Opener().read(f"{server}/picture")
    assert caught.value.kind == "image-remote"
    assert "clipkit fetch" in (caught.value.hint or "")
    for host in (server, server.replace("127.0.0.1", "localhost"), server.replace("127.0.0.1", "2130706433")):
        with pytest.raises(RecordError) as caught:
            Opener(remote=True).read(f"{host}/picture")
        assert caught.value.kind == "image-remote"


@pytest.mark.parametrize("remote", [False, True])
def test_other_schemes_are_refused_with_the_way_out(remote: bool) -> None:
    with pytest.raises(RecordError, match=r"s3://bucket/key\.jpg: only http:// and https:// are opened") as caught:
        Opener(remote=remote).read("s3://bucket/key.jpg")
    assert caught.value.kind == "image-remote"
    assert "aws s3 cp" in (caught.value.hint or "") and "--remote" not in (caught.value.hint or "")


def test_what_is_not_ascii_in_a_path_is_encoded_and_what_is_encoded_stays(server: str) -> None:
    assert remote.download(f"{server}/picture?ü=%41 b", allowed=here) == PICTURE
    assert remote.request_target(urlsplit("http://h/ä%2F b?q=%zz&ü#x")) == "/%C3%A4%2F%20b?q=%zz&%C3%BC"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:secret@host/x@y", "http://host/x@y"),
        ("http://me:se/cret@host", "http://me:se/cret@host"),  # the host is `me`, as urlsplit has it
        ("https://a@b@host?c@d", "https://host?c@d"),
        ("https://host/\x1b[31m", "https://host/\\x1b[31m"),
    ],
)
def test_names_and_passwords_are_not_shown(url: str, shown: str) -> None:
    assert remote.said(url) == shown


def test_messages_hold_no_password(server: str) -> None:
    error = refusal(server.replace("//", "//me:secret@") + "/nothing")
    assert "404" in error.message and "secret" not in error.message
