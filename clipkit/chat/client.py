"""Requests to a language model, many at once, on one event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import io
import itertools
import random
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

import aiohttp

from clipkit import __version__
from clipkit.chat import protocol
from clipkit.chat.failure import explained
from clipkit.chat.protocol import Answer, Ask
from clipkit.chat.settings import KEYS, Settings
from clipkit.chat.tally import Tally
from clipkit.errors import ClipkitError, RecordError, UsageError
from clipkit.terminal import printable
from clipkit.tries import Failure, asked_wait

_PASSING_CODES = frozenset({408, 409, 425, 429, *range(500, 600)}) - {501, 505}
_LONGEST_WAIT = 120.0  # seconds: where a server asks for more, the run is to go on later
_LONGEST_BACKOFF = 30.0  # seconds
_NAMED = 10  # models that a message lists
_SAID = 240  # characters of what a server says that a message shows
_HOPELESS = 32  # requests: so many are refused and none is answered: so it will go on
_GO_ON = "go on later with --resume"
_MODELS = "/models"
_WRONG_ADDRESS = "is --server right, often with /v1 at its end, and --server-model?"

_T = TypeVar("_T")


class BudgetSpent(ClipkitError):
    """No record is begun any more; all that were begun have their answers."""


class _Group:
    """The requests of one record. begun: one of them was sent; then the others are, too."""

    begun = False


class Client:
    """`ask` from any thread; each call gives a future of the answers.

    The key goes to the host of `settings.server` alone: no redirect is followed, proxies of the environment are not
    used and cookies not kept. It stands in no message, whatever the server says. While a server asks for a pause
    (Retry-After), nothing is sent.

    model: the name by which the server knows it. tally: what was asked and answered, and what that took.

    Raises UsageError or ClipkitError if no model is named and the server has not exactly one. `close` ends it.
    """

    def __init__(self, settings: Settings, key: str | None = None) -> None:
        self.settings, self._key = settings, key
        self.model = settings.server_model
        self.tally = Tally(settings.price)
        self._lock = threading.Lock()
        self._flying: set[Future[Any]] = set()
        self._stopped = False
        self._over: ClipkitError | None = None  # what ended the run
        self._under_way = 0  # records that were begun and lack answers
        self._met = False  # something answered
        self._pause_until = 0.0  # by the loop's clock
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chat", daemon=True)
        self._thread.start()
        try:
            self._run(self._open()).result()
            if not self.model:
                self.model = self._run(self._only_model()).result()
        except BaseException:
            self.close()
            raise

    def ask(self, asks: Sequence[Ask]) -> Future[list[Answer | RecordError]]:
        """Send the requests of one record; the answers come in their order, each with its own error.

        The future raises ClipkitError where no request of the run can succeed (no such model, no valid key),
        BudgetSpent where the record was not begun, and CancelledError after `stop`. Kinds of errors: `chat-...` and
        `empty-answer`.
        """
        return self._run(self._answers(asks))

    def stop(self) -> None:
        """Give up all that is under way; what waits for a future is woken."""
        with self._lock:
            self._stopped = True
            flying = list(self._flying)
        for future in flying:
            future.cancel()

    def close(self) -> None:
        """Stop, and leave no connection or thread behind."""
        self.stop()
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def facts(self) -> dict[str, Any]:
        """The model and what was counted, as JSON."""
        return {"model": self.model, **self.tally.facts}

    @property
    def notices(self) -> list[str]:
        """What a person should hear at the end."""
        return self.tally.notices(self.model)

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> Future[_T]:
        with self._lock:
            if self._stopped:
                coroutine.close()
                cancelled: Future[_T] = Future()
                cancelled.cancel()
                return cancelled
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
            self._flying.add(future)
        future.add_done_callback(self._landed)
        return future

    def _landed(self, future: Future[Any]) -> None:
        with self._lock:
            self._flying.discard(future)

    # On the loop

    async def _open(self) -> None:
        headers = {"User-Agent": f"clipkit/{__version__}", "Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        self._turns = asyncio.Semaphore(self.settings.concurrency)
        self._idle = asyncio.Event()  # no record is under way
        self._idle.set()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=self.settings.timeout),
            auto_decompress=False,
        )

    async def _shut(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if hasattr(self, "_session"):
            await self._session.close()

    async def _answers(self, asks: Sequence[Ask]) -> list[Answer | RecordError]:
        group = _Group()
        try:
            return await asyncio.gather(*(self._answer(ask, group) for ask in asks))
        finally:
            self._under_way -= group.begun
            if not self._under_way:
                self._idle.set()

    async def _answer(self, ask: Ask, group: _Group) -> Answer | RecordError:
        try:
            return await self._tried(ask, group)
        except RecordError as error:
            return error
        except BudgetSpent:
            await self._idle.wait()
            message = f"the budget of {self.settings.max_tokens_total:,} tokens is spent: {self.tally.said}"
            raise BudgetSpent(message, "with -o FILE, --resume goes on, under a budget of its own") from None
        except ClipkitError as error:
            self._over = error
            raise

    async def _tried(self, ask: Ask, group: _Group) -> Answer:
        """One answer, after as many tries as it takes. Raises RecordError, and ClipkitError to end the run."""
        for tries in itertools.count():
            async with self._turns:
                await self._paused()
                self._check(group)
                self.tally.requests += 1
                self.tally.repeated += tries > 0
                try:
                    body = protocol.request(ask, self.model)
                    return self._read(await self._request("POST", "/chat/completions", body))
                except Failure as failure:
                    self._settle(failure, tries)
            await asyncio.sleep(min(_LONGEST_BACKOFF, self.settings.backoff * 2**tries) * (0.5 + random.random()))
        raise AssertionError("there is always another try, or an end")

    def _check(self, group: _Group) -> None:
        """Raise what forbids another request."""
        if self._over is not None:
            raise self._over
        budget = self.settings.max_tokens_total
        if group.begun:
            return
        if budget is not None and self.tally.spent >= budget:
            raise BudgetSpent("the budget is spent")
        group.begun = True
        self._under_way += 1
        self._idle.clear()

    def _settle(self, failure: Failure, tries: int) -> None:
        """Return if another try may help, and have all wait for as long as the server asks. Raises."""
        if failure.absent and (not self._met or tries >= self.settings.retries):
            raise ClipkitError(failure.message, "is the server running? --server names its address") from None
        if failure.wait is not None and failure.wait > _LONGEST_WAIT:
            raise ClipkitError(f"{failure.message}; try again in {failure.wait:,.0f} s", _GO_ON) from None
        if not failure.passing or tries >= self.settings.retries:
            raise failure
        if failure.wait:
            self._pause_until = max(self._pause_until, self._loop.time() + failure.wait)

    async def _paused(self) -> None:
        while (left := self._pause_until - self._loop.time()) > 0:
            await asyncio.sleep(left * (1 + 0.1 * random.random()))  # not all in the same moment

    def _read(self, data: bytes) -> Answer:
        """The answer, counted. Raises Failure, and ClipkitError where a budget cannot be kept."""
        try:
            answer = protocol.answer(data)
        except protocol.Unreadable as error:
            # What stands before a server says what is no JSON while it is busy, or tells of the server's own error.
            passing = error.kind != "chat-shape"
            raise Failure(error.kind, self._said(f"the answer is {error}"), passing=passing) from None
        self.tally.add(answer)
        if self.tally.uncounted and self.settings.max_tokens_total is not None:
            message = "the server does not say how many tokens an answer took: a budget cannot be kept"
            raise ClipkitError(self._said(message), "leave out --max-tokens-total; --limit bounds the records")
        if not answer.text:
            message = f"the answer is empty{answer.refusal and ': '}{answer.refusal}"
            hint = "--set max_tokens=N gives it more room: some models think first" if answer.cut else None
            raise Failure("empty-answer", self._said(message), hint)
        return answer

    async def _request(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The body of a good answer. Raises Failure, RecordError, ClipkitError."""
        headers = {"Content-Type": "application/json"} if body is not None else None
        sent = io.BytesIO(body) if body is not None else None  # bit by bit: a picture must not hold up the loop
        with explained(self.settings.server, self.settings.timeout):
            url = self.settings.server + path
            async with self._session.request(
                method, url, data=sent, headers=headers, allow_redirects=False
            ) as response:
                self._met = True
                data = await self._receive(response)
        if response.status == 200:
            return data
        if response.status == 404 and path != _MODELS:
            raise await self._not_found(data)
        raise self._failure(response, data)

    async def _receive(self, response: aiohttp.ClientResponse) -> bytes:
        data = bytearray()
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > self.settings.max_bytes:
                response.close()
                message = f"the answer has more than {self.settings.max_bytes:,} bytes"
                raise Failure("chat-too-large", self._said(message))
        return bytes(data)

    def _failure(self, response: aiohttp.ClientResponse, data: bytes) -> ClipkitError:
        """What an answer of another status than 200 means."""
        status, (said, code) = response.status, protocol.complaint(data)
        told = self._said(f"status {status}{said and ': '}{said}")
        if 300 <= status < 400:
            to = response.headers.get("Location", "nowhere")
            return ClipkitError(
                self._said(f"it redirects to {to}, which is not followed"), "name the final address by --server"
            )
        if status in (401, 403):  # what it says is not passed on: it may hold a part of the key
            which = "refused the key" if self._key else "wants a key"
            return ClipkitError(self._said(f"the server {which} (status {status})"), f"export {KEYS[0]}=...")
        if status == 402 or code == "insufficient_quota":
            return ClipkitError(told, f"what was paid for is used up: {_GO_ON}")
        if status == 404:
            return ClipkitError(told, _WRONG_ADDRESS)
        self.tally.refused += status not in _PASSING_CODES
        if self.tally.refused >= _HOPELESS and not self.tally.answered:
            message = f"the first {self.tally.refused} requests were refused: status {status}{said and ': '}{said}"
            return ClipkitError(self._said(message), "is it the right model, and does it take what is sent?")
        hint = "--set max_side=512 sends smaller pictures" if status == 413 else None
        wait = asked_wait(response.headers.get("Retry-After", ""))
        return Failure(f"chat-status-{status}", told, hint, passing=status in _PASSING_CODES, wait=wait)

    async def _not_found(self, data: bytes) -> ClipkitError:
        """Which of the two it is, the model or the address."""
        try:
            names = await self._models()
        except ClipkitError:
            names = []
        if names and self.model not in names:
            return UsageError(self._said(f"there is no model {self.model!r}"), self._choice(names))
        said, _ = protocol.complaint(data)
        return ClipkitError(self._said(f"status 404{said and ': '}{said}"), _WRONG_ADDRESS)

    async def _models(self) -> list[str]:
        """The names that the server lists. Raises ClipkitError."""
        data = await self._request("GET", _MODELS)
        try:
            return protocol.models(data)
        except protocol.Unreadable as error:
            raise ClipkitError(self._said(f"the list of models is {error}"), "--server-model NAME") from None

    async def _only_model(self) -> str:
        try:
            names = await self._models()
        except RecordError as error:
            hint = "is the server running?" if error.kind == "chat-connect" else "--server-model NAME needs no list"
            raise ClipkitError(error.message, hint) from None
        if len(names) != 1:
            has = f"{len(names)} models" if names else "a list of no models"
            raise UsageError(self._said(f"the server has {has}: name one by --server-model"), self._choice(names))
        return names[0]

    def _choice(self, names: Sequence[str]) -> str:
        if not names:
            return "--server-model NAME"
        more = f", and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        return f"it has: {', '.join(self._clean(name) for name in sorted(names)[:_NAMED])}{more}"

    def _said(self, text: str) -> str:
        return f"{self.settings.server}: {self._clean(text)}"

    def _clean(self, text: str) -> str:
        """What a server says, on one line of no great length, without the key."""
        text = text.replace(self._key, "***") if self._key else text
        text = printable(" ".join(text[: 4 * _SAID].split()))
        return text if len(text) <= _SAID else text[: _SAID - 3] + "..."


def collected(future: Future[list[Answer | RecordError]]) -> list[Answer | RecordError]:
    """The answers, once they are there. Raises RecordError `chat-stopped` where they are no longer wanted."""
    try:
        return future.result()
    except CancelledError:
        raise RecordError("chat-stopped", "stopped") from None
