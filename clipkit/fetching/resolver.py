"""Names to addresses that were checked: asked once, remembered, and nothing that leads inside."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from clipkit.terminal import printable
from clipkit.tries import Failure

_REMEMBERED = 10_000  # names
_SECONDS = 300.0  # for so long
_AT_ONCE = 64  # look-ups; each is a thread that waits


class Resolver(AbstractResolver):
    """Resolves for aiohttp, which connects to the very addresses given: a name cannot change its mind in between.

    allowed: whether an address may be connected to; one of a name's that may not refuses the name. Used by one loop.
    """

    def __init__(self, allowed: Callable[[str], bool]) -> None:
        self._allowed = allowed
        self._known: OrderedDict[str, tuple[float, list[str] | Failure]] = OrderedDict()
        self._asked: dict[str, asyncio.Task[list[str]]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """All addresses of a name. Raises Failure: `fetch-dns`, `fetch-private`."""
        return [
            {
                "hostname": host,
                "host": address,
                "port": port,
                "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                "proto": socket.IPPROTO_TCP,
                "flags": socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            }
            for address in await self._addresses(host)
        ]

    def check_literal(self, host: str) -> None:
        """Refuse a host that is an address itself, which aiohttp doesn't resolve. Raises Failure: `fetch-private`, and
        `fetch-url` for spellings such as 2130706433 and 127.1, which some of its versions hand to the system unseen."""
        try:
            address = str(ipaddress.ip_address(host.partition("%")[0]))
        except ValueError:
            if ":" in host or host.replace(".", "").isdigit():
                message = f"{printable(host)} is neither the name of a host nor an address"
                raise Failure("fetch-url", message) from None
        else:
            self._check(address, address)

    async def close(self) -> None:
        for task in self._asked.values():
            task.cancel()

    async def _addresses(self, host: str) -> list[str]:
        now = asyncio.get_running_loop().time()
        until, found = self._known.get(host, (0.0, None))
        if found is None or until < now:
            task = self._asked.get(host)
            if task is None:
                task = self._asked[host] = asyncio.create_task(self._ask(host))
                task.add_done_callback(lambda done: (self._asked.pop(host), done.cancelled() or done.exception()))
            return await asyncio.shield(task)  # whoever gives up waiting leaves it to the others
        if isinstance(found, Failure):
            raise found
        return found

    async def _ask(self, host: str) -> list[str]:
        found: list[str] | Failure
        try:
            async with self._slots:
                infos = await _getaddrinfo(host)
            found = list(dict.fromkeys(str(info[4][0]) for info in infos))
            for address in found:
                self._check(host, address)
        except Failure as failure:
            found = failure
        except (OSError, UnicodeError) as error:
            passing = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
            message = "no name server answers for" if passing else "there is no host"
            found = Failure("fetch-dns", f"{message} {printable(host)}", passing=passing)
        if not (isinstance(found, Failure) and found.passing):
            self._known[host] = (asyncio.get_running_loop().time() + _SECONDS, found)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        if isinstance(found, Failure):
            raise found
        return found

    def _check(self, host: str, address: str) -> None:
        if not self._allowed(address):
            place = printable(host) if host == address else f"{printable(host)} is at {address}, which"
            message = f"{place} is not a public address"
            raise Failure("fetch-private", message, "--allow-private allows that: do you trust the list?")


async def _getaddrinfo(host: str) -> list[Any]:
    """`socket.getaddrinfo` in a thread of its own, which nobody waits for when the program ends."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Any]] = loop.create_future()

    def settle(infos: list[Any], error: Exception | None) -> None:
        if not answer.done():
            answer.set_exception(error) if error else answer.set_result(infos)

    def ask() -> None:
        infos: list[Any] = []
        failed: Exception | None = None
        try:
            infos = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, infos, failed)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    return await answer
