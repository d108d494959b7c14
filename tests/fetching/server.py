"""A web server that misbehaves in every way known, for downloads to be tested against.

The first part of a path says what is done; the rest names the picture, so that any number of URLs misbehave alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import ssl
import threading
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from time import time
from urllib.parse import unquote

from PIL import Image

SELF_SIGNED = Path(__file__).parent / "self_signed.pem"  # for pictures.example, valid until 2126


def picture(seed: str, format: str = "JPEG", side: int = 24) -> bytes:
    """A picture that looks like no other seed's."""
    buffer = io.BytesIO()
    quarters = Image.frombytes("RGB", (2, 2), hashlib.blake2b(seed.encode(), digest_size=12).digest())
    quarters.resize((side, side + 8), Image.Resampling.NEAREST).save(buffer, format)
    return buffer.getvalue()


@dataclass
class Request:
    """What came: the path as sent, the header fields by lower-case name, and how often the path came before."""

    path: str
    fields: dict[str, str]
    before: int
    writer: asyncio.StreamWriter

    @property
    def rest(self) -> str:
        return self.path.partition("?")[0].partition("/")[2].partition("/")[2]

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def answer(self, body: bytes, *fields: str, status: str = "200 OK", length: int | None = None) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *fields]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    def redirect(self, to: str, status: str = "302 Found") -> None:
        self.answer(b"", f"Location: {to}", status=status)


Behaviour = Callable[[Request], Awaitable[bool | None]]  # True: the connection ends
BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(function: Behaviour) -> Behaviour:
    BEHAVIOURS[function.__name__] = function
    return function


class Server:
    """requests: how often each path was asked for. most: by Host, the most requests answered at one time.

    connections: that were made. fields: of the last request of a path.
    """

    def __init__(self, tls: bool = False) -> None:
        self.requests: Counter[str] = Counter()
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.most_together = 0
        self.connections = 0
        self.fields: dict[str, dict[str, str]] = {}
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http{'s' * self._tls}://{host}:{self.port}/{path}"

    def __enter__(self) -> Server:
        self._thread.start()
        context = None
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(SELF_SIGNED)
        opening = asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context, backlog=512, limit=1 << 20)
        self._server = asyncio.run_coroutine_threadsafe(opening, self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            while await self._one(await reader.readuntil(b"\r\n\r\n"), writer):
                await writer.drain()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            writer.close()
            await writer.wait_closed()

    async def _one(self, head: bytes, writer: asyncio.StreamWriter) -> bool:
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        path = first.split(" ")[1]
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        request = Request(path, fields, self.requests[path], writer)
        self.requests[path] += 1
        self.fields[path] = fields
        host = fields["host"].partition(":")[0]
        self.now[host] += 1
        self.most[host] = max(self.most[host], self.now[host])
        self.most_together = max(self.most_together, self.now.total())
        try:
            name = path.partition("?")[0].split("/")[1]
            over = await BEHAVIOURS.get(name, nothing)(request)
            await writer.drain()
        finally:
            self.now[host] -= 1
        return not over


@contextlib.contextmanager
def serving(tls: bool = False) -> Iterator[Server]:
    with Server(tls) as server:
        yield server


# What it does


async def nothing(request: Request) -> None:
    request.answer(b"no such page", status="404 Not Found")


@behaviour
async def fine(request: Request) -> None:
    request.answer(picture(request.rest), "Content-Type: image/jpeg")


@behaviour
async def png(request: Request) -> None:
    request.answer(picture(request.rest, "PNG"), "Content-Type: image/jpeg")


@behaviour
async def slow(request: Request) -> None:
    await asyncio.sleep(0.05)
    request.answer(picture(request.rest))


@behaviour
async def status(request: Request) -> None:
    """/status/410/..."""
    code = request.rest[:3]
    request.answer(b"" if code in ("204", "304") else b"<html>", status=f"{code} Because")


@behaviour
async def broken_once(request: Request) -> None:
    """/broken_once/500/...: that status at first, then the picture."""
    if request.before:
        request.answer(picture(request.rest))
    else:
        request.answer(b"", status=f"{request.rest[:3]} Because")


@behaviour
async def busy(request: Request) -> None:
    """/busy/SECONDS/...: 429 with Retry-After at first, then the picture."""
    if request.before:
        request.answer(picture(request.rest))
    else:
        request.answer(b"", f"Retry-After: {request.rest.partition('/')[0]}", status="429 Too Many Requests")


@behaviour
async def busy_until(request: Request) -> None:
    """As busy, with a date a second ahead."""
    if request.before:
        request.answer(picture(request.rest))
    else:
        request.answer(b"", f"Retry-After: {formatdate(time() + 1, usegmt=True)}", status="503 Service Unavailable")


@behaviour
async def busy_forever(request: Request) -> None:
    """/busy_forever/YEAR: as busy_until, with a date that no clock can hold."""
    request.answer(b"", f"Retry-After: Mon, 01 Jan {request.rest} 00:00:00 GMT", status="503 Service Unavailable")


@behaviour
async def hang(request: Request) -> None:
    await asyncio.sleep(60)


@behaviour
async def hang_once(request: Request) -> None:
    if not request.before:
        await asyncio.sleep(60)
    request.answer(picture(request.rest))


@behaviour
async def drip(request: Request) -> None:
    body = picture(request.rest)
    request.answer(b"", length=len(body))
    for byte in body:
        request.send(bytes([byte]))
        await asyncio.sleep(0.05)


@behaviour
async def hang_up(request: Request) -> bool:
    return True


@behaviour
async def cut(request: Request) -> bool:
    """Ends in the middle of the body."""
    body = picture(request.rest, side=200)
    request.answer(body[:-300], length=len(body))
    return True


@behaviour
async def cut_once(request: Request) -> bool:
    body = picture(request.rest)
    request.answer(body if request.before else body[:100], length=len(body))
    return True


@behaviour
async def short_length(request: Request) -> None:
    """Content-Length is less than what is sent: the rest runs into the next answer on this connection."""
    body = picture(request.rest, "PNG")
    request.answer(body, length=len(body) - 20)


@behaviour
async def two_answers(request: Request) -> None:
    """The picture, its head first, and behind it another whole answer."""
    body, other = picture(request.rest), picture("of another URL")
    request.answer(b"", length=len(body))
    await request.writer.drain()
    await asyncio.sleep(0.05)
    request.send(body + f"HTTP/1.1 200 OK\r\nContent-Length: {len(other)}\r\n\r\n".encode() + other)


@behaviour
async def long_body(request: Request) -> None:
    """A whole picture, and an empty line that nobody asked for."""
    request.answer(picture(request.rest))
    request.send(b"\r\n")


@behaviour
async def chunked(request: Request) -> None:
    body = picture(request.rest)
    request.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for at in range(0, len(body), 100):
        part = body[at : at + 100]
        request.send(b"%x\r\n%s\r\n" % (len(part), part))
    request.send(b"0\r\n\r\n")


@behaviour
async def large(request: Request) -> None:
    """Forty kilobytes, bit by bit."""
    body = picture(request.rest, side=1500)
    request.answer(b"", length=len(body))
    for at in range(0, len(body), 1000):
        request.send(body[at : at + 1000])
        await request.writer.drain()


@behaviour
async def large_cut(request: Request) -> bool:
    body = picture(request.rest, side=1500)
    request.answer(body[:-1000], length=len(body))
    return True


@behaviour
async def chunked_garbage(request: Request) -> bool:
    request.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await asyncio.sleep(0.05)
    request.send(b"zz\r\n" + picture(request.rest))
    return True


@behaviour
async def chunked_cut(request: Request) -> bool:
    body = picture(request.rest, side=100)
    request.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(body), body))
    return True


@behaviour
async def until_close(request: Request) -> bool:
    request.send(b"HTTP/1.1 200 OK\r\n\r\n" + picture(request.rest))
    return True


@behaviour
async def cut_silently(request: Request) -> bool:
    """Ends in the middle, and nothing said how long it would be."""
    request.send(b"HTTP/1.1 200 OK\r\n\r\n" + picture(request.rest)[:-40])
    return True


@behaviour
async def http_1_0(request: Request) -> bool:
    request.send(b"HTTP/1.0 200 OK\r\nContent-Type: image/jpeg\r\n\r\n" + picture(request.rest))
    return True


@behaviour
async def closes_idle(request: Request) -> bool:
    """Promises to keep the connection, and ends it."""
    request.answer(picture(request.rest), "Connection: keep-alive")
    return True


@behaviour
async def endless(request: Request) -> None:
    request.send(b"HTTP/1.1 200 OK\r\n\r\n" + picture(request.rest))
    while not request.writer.is_closing():
        request.send(bytes(1 << 16))
        await request.writer.drain()


@behaviour
async def huge_length(request: Request) -> None:
    request.answer(picture(request.rest), length=1 << 40)
    await asyncio.sleep(60)


@behaviour
async def gzipped(request: Request) -> None:
    request.answer(gzip.compress(picture(request.rest)), "Content-Encoding: gzip")


@behaviour
async def bomb(request: Request) -> None:
    """Ten kilobytes that unpack to ten megabytes."""
    request.answer(gzip.compress(picture(request.rest) + bytes(10 << 20)), "Content-Encoding: gzip")


@behaviour
async def false_encoding(request: Request) -> None:
    request.answer(picture(request.rest), "Content-Encoding: gzip")


@behaviour
async def html(request: Request) -> None:
    """HTML that claims to be a JPEG, and does not end."""
    request.send(b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n\r\n<!doctype html><title>gone</title>" + b" " * 1000)
    await asyncio.sleep(60)


@behaviour
async def bits(request: Request) -> None:
    """The head of a picture, and no picture."""
    request.answer(picture(request.rest, "PNG")[:30])


@behaviour
async def enormous(request: Request) -> None:
    """A PNG of a million pixels a side, by its header."""
    data = bytearray(picture(request.rest, "PNG"))
    data[16:24] = (1_000_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    request.answer(bytes(data))


@behaviour
async def empty(request: Request) -> None:
    request.answer(b"")


@behaviour
async def not_http(request: Request) -> bool:
    request.send(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
    return True


@behaviour
async def bad_fields(request: Request) -> bool:
    request.send(b"HTTP/1.1 200 OK\r\nno colon here\r\n\x00: x\r\nContent-Length: many\r\n\r\n")
    return True


@behaviour
async def long_fields(request: Request) -> None:
    request.answer(picture(request.rest), f"X-Long: {'x' * 100_000}")


@behaviour
async def cookie(request: Request) -> None:
    """Sets a cookie; a request that brings one gets no picture."""
    request.answer(b"" if "cookie" in request.fields else picture(request.rest), "Set-Cookie: seen=1; Path=/")


@behaviour
async def robots(request: Request) -> None:
    """/robots/HEADER[;HEADER...]: that value of X-Robots-Tag."""
    values = unquote(request.rest).split(";")
    request.answer(picture(request.rest), *(f"X-Robots-Tag: {value}" for value in values))


@behaviour
async def to(request: Request) -> None:
    """/to/...?URL"""
    request.redirect(request.path.partition("?")[2])


@behaviour
async def moved(request: Request) -> None:
    """/moved/308/...: a relative redirect."""
    request.redirect("../../fine/" + request.rest, status=f"{request.rest[:3]} Moved")


@behaviour
async def loop(request: Request) -> None:
    request.redirect(request.path)


@behaviour
async def steps(request: Request) -> None:
    """/steps/N: N redirects, then the picture."""
    left = int(request.rest)
    request.redirect(f"/steps/{left - 1}" if left > 1 else "/fine/after-steps")


@behaviour
async def nowhere(request: Request) -> None:
    request.answer(b"", status="302 Found")


@behaviour
async def secret(request: Request) -> None:
    """Only with the password; redirects as `to` does if there is a query."""
    if request.fields.get("authorization") != "Basic bWU6c2VjcmV0":
        request.answer(b"", status="401 Unauthorized")
    else:
        request.answer(picture(request.rest))
