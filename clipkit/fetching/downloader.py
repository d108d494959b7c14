"""Downloads by the hundred on one event loop in a thread of its own, for callers in other threads."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import aiohttp

from clipkit import __version__
from clipkit.fetching.address import Address
from clipkit.fetching.connector import Connector
from clipkit.fetching.failure import explained
from clipkit.fetching.folder import Arrival, Folder, Saved, too_large
from clipkit.fetching.resolver import Resolver
from clipkit.fetching.robots import refusal
from clipkit.fetching.turns import Turns
from clipkit.images.remote import is_public, said
from clipkit.tries import Failure, asked_wait

USER_AGENT = f"clipkit/{__version__}"
_REDIRECTS = 5
_REDIRECT_CODES = frozenset({301, 302, 303, 307, 308})
_PASSING_CODES = frozenset({408, 425, 429, *range(500, 600)}) - {501, 505}
_LONGEST_WAIT = 60.0  # seconds: a server that asks for more is left alone for this run
_WRITERS = 8  # threads that check and write files
_FAILURES_REMEMBERED = 100_000


@dataclass(frozen=True)
class Manners:
    """How servers are treated.

    concurrency, per_host: requests at once, in all and to one host. retries: further tries after a passing failure, the
    first after about `backoff` seconds, each next after twice as long. timeout: seconds for one request and its
    answer. ignore_robots: take what X-Robots-Tag forbids.
    """

    concurrency: int = 128
    per_host: int = 4
    retries: int = 2
    backoff: float = 1.0
    timeout: float = 20.0
    user_agent: str = USER_AGENT
    ignore_robots: bool = False


class _Job:
    """One URL on its way. at: what is asked for next, after `hops` redirects. tries: that failed."""

    __slots__ = ("at", "future", "hops", "start", "tries", "url")

    def __init__(self, url: str, start: Address, future: Future[Saved]) -> None:
        self.url, self.start, self.future = url, start, future
        self.at, self.hops, self.tries = start, 0, 0


class Downloader:
    """`submit` URLs from any thread; each gives a future of what was saved.

    Every name is resolved here and all its addresses must be `allowed`; connections go to the addresses that were
    checked. Proxies of the environment are not used, cookies not kept, certificates verified, and nothing is
    decompressed. Equal URLs share one download, also with earlier runs into the same folder.

    `close` ends it. reused, repeated: files that were there already; tries after the first.
    """

    def __init__(
        self, folder: Folder, manners: Manners = Manners(), *, allowed: Callable[[str], bool] = is_public
    ) -> None:
        self._folder, self._manners, self._allowed = folder, manners, allowed
        self._agents = frozenset({"clipkit", manners.user_agent.partition("/")[0].strip().lower()})
        self.reused = self.repeated = 0
        self._lock = threading.Lock()
        self._flying: dict[str, Future[Saved]] = {}
        self._failed: OrderedDict[str, Failure] = OrderedDict()
        self._stopped = False
        self._turns: Turns[_Job] = Turns(self._launch, at_once=manners.concurrency, per_host=manners.per_host)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(_WRITERS, thread_name_prefix="write"))
        self._thread = threading.Thread(target=self._loop.run_forever, name="download", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()

    async def _open(self) -> None:
        self._resolver = Resolver(self._allowed)
        self._session = aiohttp.ClientSession(
            connector=Connector(resolver=self._resolver, use_dns_cache=False, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": self._manners.user_agent, "Accept": "image/*", "Accept-Encoding": "identity"},
            timeout=aiohttp.ClientTimeout(total=self._manners.timeout),
            auto_decompress=False,
        )

    def submit(self, url: str) -> Future[Saved]:
        """Begin a download, or join it. The future raises Failure, or RecordError for what is no sound image."""
        with self._lock:
            if url in self._flying:
                return self._flying[url]
            future: Future[Saved] = Future()
            if failure := self._refused(url):
                future.set_exception(failure)
                return future
            self._flying[url] = future
            found = self._folder.find(url)
        if found and (saved := self._folder.measure(found)):
            self.reused += 1
            self._settle(url, future, saved)
        else:
            self._begin(url, future)
        return future

    def _refused(self, url: str) -> Failure | None:
        if self._stopped:
            return Failure("fetch-stopped", f"{said(url)}: stopped")
        return self._failed.get(url)

    def _begin(self, url: str, future: Future[Saved]) -> None:
        try:
            job = _Job(url, Address.parse(url), future)
        except Failure as failure:
            self._settle(url, future, failure)
        else:
            self._loop.call_soon_threadsafe(self._turns.add, job.at.host, job)

    def stop(self) -> None:
        """Give up all that is under way: the futures fail with `fetch-stopped`."""
        with self._lock:
            self._stopped = True
            flying = list(self._flying.items())
        for url, future in flying:
            self._settle(url, future, Failure("fetch-stopped", f"{said(url)}: stopped"))

    def close(self) -> None:
        """Stop, and leave no connection, thread or unfinished file behind."""
        self.stop()
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._folder.close()

    async def _shut(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()
        await self._resolver.close()
        await self._loop.shutdown_default_executor()

    def _settle(self, url: str, future: Future[Saved], outcome: Saved | BaseException) -> None:
        with self._lock:
            if future.done():
                return
            self._flying.pop(url, None)
            if isinstance(outcome, Saved):
                future.set_result(outcome)
                return
            if isinstance(outcome, Failure) and not self._stopped:
                self._failed[url] = outcome
                if len(self._failed) > _FAILURES_REMEMBERED:
                    self._failed.popitem(last=False)
            future.set_exception(outcome)

    # On the loop

    def _launch(self, job: _Job) -> None:
        if self._stopped:
            return
        task = self._loop.create_task(self._run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, job: _Job) -> None:
        host = job.at.host
        try:
            outcome = await self._request(job)
            if isinstance(outcome, Saved):
                self._settle(job.url, job.future, outcome)
            else:
                job.at, job.hops = outcome, job.hops + 1
                self._turns.add(outcome.host, job)
        except Failure as failure:
            self._failed_once(job, host, failure)
        except BaseException as error:  # of the picture, of the disk, or a bug: the caller's
            self._settle(job.url, job.future, error)
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._turns.done(host)

    def _failed_once(self, job: _Job, host: str, failure: Failure) -> None:
        asked = failure.wait or 0.0
        if not failure.passing or job.tries >= self._manners.retries or asked > _LONGEST_WAIT or self._stopped:
            self._settle(job.url, job.future, failure)
            return
        wait = max(asked, self._manners.backoff * 2**job.tries * (0.5 + _chance(job.url, job.tries)))
        job.at, job.hops, job.tries = job.start, 0, job.tries + 1
        self.repeated += 1
        if asked:
            self._turns.hold(host)
            self._loop.call_later(asked, self._turns.release, host)
        self._loop.call_later(wait, self._turns.add, job.at.host, job)

    async def _request(self, job: _Job) -> Saved | Address:
        """One request: what was saved, or where it redirects to. Raises Failure, RecordError, ClipkitError."""
        at, arrival = job.at, self._folder.arrival(job.url)
        self._resolver.check_literal(at.host)
        headers = {"Authorization": at.auth} if at.auth else None
        try:
            with explained(job.url, self._manners.timeout):
                async with self._session.get(at.url, headers=headers, allow_redirects=False) as response:
                    if response.status in _REDIRECT_CODES:
                        return self._redirect(job, response)
                    self._check(job.url, response)
                    await self._receive(arrival, response)
                    if not self._turns.waiting(at.host):
                        response.close()  # thousands of idle connections would use up what a process may open
            return await asyncio.to_thread(arrival.keep)
        finally:
            arrival.discard()

    def _redirect(self, job: _Job, response: aiohttp.ClientResponse) -> Address:
        location = response.headers.get("Location", "")
        response.close()
        if not location:
            raise Failure("fetch-redirects", f"{said(job.url)}: a redirect to nowhere")
        if job.hops >= _REDIRECTS:
            raise Failure("fetch-redirects", f"{said(job.url)}: more than {_REDIRECTS} redirects")
        return job.at.follow(location)

    def _check(self, url: str, response: aiohttp.ClientResponse) -> None:
        """Raise Failure for what can be refused by its head."""
        if response.status != 200:
            message = f"{said(url)}: status {response.status}"
            passing = response.status in _PASSING_CODES
            wait = asked_wait(response.headers.get("Retry-After", ""))
            raise Failure(f"fetch-status-{response.status}", message, passing=passing, wait=wait)
        if not self._manners.ignore_robots:
            directive = refusal(response.headers.getall("X-Robots-Tag", ()), self._agents)
            if directive:
                message = f"{said(url)}: its server says {directive}"
                raise Failure("fetch-robots", message, "--ignore-robots-tags is for those who may")
        if (response.content_length or 0) > self._folder.limits.max_bytes:
            raise too_large(url, self._folder.limits)

    async def _receive(self, arrival: Arrival, response: aiohttp.ClientResponse) -> None:
        async for chunk in response.content.iter_any():
            arrival.add(chunk)
            if arrival.full:
                await asyncio.to_thread(arrival.spill)


def _chance(url: str, tries: int) -> float:
    """A number in 0 .. 1 that is the same in every run."""
    digest = hashlib.blake2b(f"{tries} {url}".encode("utf-8", "surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big") / 2**32
