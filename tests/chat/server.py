"""A server of the chat protocol that misbehaves in every way known, for the client to be tested against.

The address says what is done: `http://127.0.0.1:PORT/BEHAVIOUR/REST`, to which the client adds `/chat/completions`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


@dataclass
class Request:
    """What came. rest: of the path, after the behaviour's name. before: requests of the same texts that came before.

    at: the time when it came, by the monotonic clock.
    """

    method: str
    path: str
    fields: dict[str, str]
    body: Any
    rest: str
    before: int
    at: float
    writer: asyncio.StreamWriter

    @property
    def asked(self) -> str:
        """The user's text."""
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, str) else content[-1]["text"]

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def answer(self, body: Any, *fields: str, status: str = "200 OK", length: int | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(data) if length is None else length}", *fields]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + data)

    def complain(self, status: int, message: str, *fields: str, code: str | None = None) -> None:
        self.answer({"error": {"message": message, "code": code}}, *fields, status=f"{status} Because")

    def say(self, text: str | None = None) -> None:
        self.answer(completion(f"<{self.asked}>" if text is None else text))


def completion(text: str | None, usage: Any = USAGE, ended: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    made = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": ended}]}
    return made if usage is None else made | {"usage": usage}


Behaviour = Callable[[Request], Awaitable[bool | None]]  # True: the connection ends
BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(function: Behaviour) -> Behaviour:
    BEHAVIOURS[function.__name__] = function
    return function


class Server:
    """requests: all that came, in their order. most: requests that were answered at one time."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[Request] = []
        self.most = self._now = 0
        self._asked: Counter[bytes] = Counter()
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"

    @property
    def asked(self) -> list[str]:
        """The user's texts, in the order in which they came."""
        return [request.asked for request in self.requests if request.method == "POST"]

    def __enter__(self) -> Server:
        self._thread.start()
        opening = asyncio.start_server(self._serve, "127.0.0.1", self._port, limit=1 << 20)
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
        with contextlib.suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            while await self._one(await reader.readuntil(b"\r\n\r\n"), reader, writer):
                await writer.drain()
        with contextlib.suppress(OSError, asyncio.CancelledError):
            writer.close()
            await writer.wait_closed()

    async def _one(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        method, path, _ = first.split(" ")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        data = await reader.readexactly(int(fields.get("content-length", 0)))
        name, _, rest = path.removesuffix("/chat/completions").removesuffix("/models").lstrip("/").partition("/")
        before = self._asked[data]
        self._asked[data] += 1
        body = json.loads(data) if data else None
        request = Request(method, path, fields, body, rest, before, monotonic(), writer)
        self.requests.append(request)
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            over = await (BEHAVIOURS[name] if method == "POST" or name in LISTING else models)(request)
            await writer.drain()
        finally:
            self._now -= 1
        return not over


@contextlib.contextmanager
def serving(port: int = 0) -> Iterator[Server]:
    with Server(port) as server:
        yield server


# What it does


async def models(request: Request) -> None:
    """The models tiny, and those of /BEHAVIOUR/a,b."""
    names = request.rest.split(",") if request.rest else ["tiny"]
    request.answer({"object": "list", "data": [{"id": name, "object": "model"} for name in names if name != "none"]})


@behaviour
async def fine(request: Request) -> None:
    request.say()


@behaviour
async def says(request: Request) -> None:
    """Answers with what it is asked, as it is."""
    request.say(request.asked)


@behaviour
async def says_json(request: Request) -> None:
    """Answers with the text that it is asked for as JSON: a prompt is of one line, an answer need not be."""
    request.say(json.loads(request.asked))


@behaviour
async def slow(request: Request) -> None:
    await asyncio.sleep(0.05)
    request.say()


@behaviour
async def slower_first(request: Request) -> None:
    """The lower the number that is asked, the later the answer."""
    await asyncio.sleep(0.2 / (1 + int(request.asked)))
    request.say()


@behaviour
async def busy(request: Request) -> None:
    """/busy/SECONDS: 429 with Retry-After when a text is asked first."""
    if request.before:
        request.say()
    else:
        request.complain(429, "slow down", f"Retry-After: {request.rest}")


@behaviour
async def pauses_at(request: Request) -> None:
    """/pauses_at/TEXT: asks for a quarter of an hour when that is asked first."""
    if request.asked.replace(" ", "%20") == request.rest and not request.before:
        request.complain(429, "come back later", "Retry-After: 900")
    else:
        request.say()


@behaviour
async def hangs_at(request: Request) -> None:
    """/hangs_at/TEXT: no answer when that is asked first."""
    if request.asked.replace(" ", "%20") == request.rest and not request.before:
        await asyncio.sleep(60)
    request.say()


@behaviour
async def quota(request: Request) -> None:
    request.complain(429, "You exceeded your current quota", code="insufficient_quota")


@behaviour
async def status(request: Request) -> None:
    """/status/CODE: always."""
    request.complain(int(request.rest), "it is what it is")


@behaviour
async def status_once(request: Request) -> None:
    if request.before:
        request.say()
    else:
        request.answer(b"<html>", status=f"{request.rest} Because")


@behaviour
async def odd_fails(request: Request) -> None:
    """400 for texts that end in an odd digit."""
    if request.asked[-1] in "13579":
        request.complain(400, "odd")
    else:
        request.say()


@behaviour
async def hang(request: Request) -> None:
    await asyncio.sleep(60)


@behaviour
async def hang_once(request: Request) -> None:
    if not request.before:
        await asyncio.sleep(60)
    request.say()


@behaviour
async def hang_up(request: Request) -> bool:
    return True


@behaviour
async def hang_up_once(request: Request) -> bool:
    if request.before:
        request.say()
    return not request.before


@behaviour
async def cut(request: Request) -> bool:
    """Ends in the middle of the answer."""
    data = json.dumps(completion("half an answer")).encode()
    request.answer(data[:-30], length=len(data))
    return True


@behaviour
async def cut_once(request: Request) -> bool:
    if request.before:
        request.say()
        return False
    return bool(await cut(request))


@behaviour
async def cut_chunked_once(request: Request) -> bool:
    """Ends in the middle of a chunked answer, as if that were its end."""
    if request.before:
        request.say()
        return False
    data = json.dumps(completion("half an answer")).encode()[:-30]
    request.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
    return True


@behaviour
async def no_http(request: Request) -> bool:
    request.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
    return True


@behaviour
async def body(request: Request) -> None:
    """Answers with the very bytes that are asked for."""
    request.answer(request.asked.encode("utf-8", "surrogateescape"))


@behaviour
async def latin_1(request: Request) -> None:
    request.answer(json.dumps(completion("café"), ensure_ascii=False).encode("latin-1"))


@behaviour
async def huge(request: Request) -> None:
    """Forty megabytes, if one lets it."""
    request.send(b"HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n")
    for _ in range(400):
        request.send(b" " * 100_000)
        await request.writer.drain()


@behaviour
async def bomb(request: Request) -> None:
    """Ten kilobytes that unpack to ten megabytes."""
    request.answer(gzip.compress(bytes(10 << 20)), "Content-Encoding: gzip")


@behaviour
async def redirect(request: Request) -> None:
    """/redirect/PORT: to another server."""
    to = f"http://127.0.0.1:{request.rest}/fine/chat/completions"
    request.answer(b"", f"Location: {to}", status="307 Temporary Redirect")


@behaviour
async def echo(request: Request) -> None:
    """/echo/STATUS: says the key that was sent, in a long sentence."""
    key = request.fields["authorization"].removeprefix("Bearer ")
    message = f"{'so ' * 70}the key {key} is not one of ours, {key} is not"
    if request.rest == "200":
        request.answer(completion(None) | {"choices": [{"message": {"content": None, "refusal": message}}]})
    elif request.rest == "302":
        request.answer(b"", f"Location: http://127.0.0.1:1/{key}", status="302 Found")
    else:
        request.complain(int(request.rest), message)


@behaviour
async def no_such_model(request: Request) -> None:
    """404 for all but `tiny`, as vLLM and Ollama have it."""
    if request.method == "GET":
        await models(request)
    elif request.body["model"] == "tiny":
        request.say()
    else:
        request.complain(404, f"The model `{request.body['model']}` does not exist.")


@behaviour
async def no_page(request: Request) -> None:
    request.answer({"detail": "Not Found"}, status="404 Not Found")


@behaviour
async def no_list(request: Request) -> None:
    """Answers, and lists no models."""
    if request.method == "GET":
        await no_page(request)
    else:
        request.say()


@behaviour
async def wrong_list(request: Request) -> None:
    request.answer({"models": ["tiny"]})


@behaviour
async def uncounted(request: Request) -> None:
    request.answer(completion("a dog", usage=None))


@behaviour
async def refuses(request: Request) -> None:
    message = {"content": None, "refusal": "I cannot help with that."}
    request.answer({"choices": [{"message": message, "finish_reason": "stop"}], "usage": USAGE})


@behaviour
async def too_long(request: Request) -> None:
    """Answers that end where they may not be longer."""
    request.answer(completion("a dog that", ended="length"))


LISTING = {"no_such_model", "no_page", "no_list", "wrong_list", "hang", "status", "redirect", "hang_up"}
