"""Connections that are used again only while nothing but answers to what was asked came over them."""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

import aiohttp
from aiohttp.connector import Connection


class Connector(aiohttp.TCPConnector):
    """Closes a kept connection on which something lies that nobody asked for.

    It would be taken for the answer to the next request, and each answer after it for the one to a later request: a
    picture would be saved under another's URL. aiohttp looks when a connection is given back, which can be before the
    surplus of that same answer was read.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._used: WeakSet[object] = WeakSet()

    async def connect(self, req: aiohttp.ClientRequest, *args: Any, **options: Any) -> Connection:
        while True:
            connection = await super().connect(req, *args, **options)
            protocol = connection.protocol
            if protocol is None or protocol not in self._used or not protocol.should_close:
                self._used.add(protocol)
                return connection
            connection.close()
