"""Whose turn it is: so many downloads at once, so many of one server, servers in rotation."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Host(Generic[T]):
    __slots__ = ("active", "held", "queued", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[T] = deque()
        self.active = 0
        self.held = 0
        self.queued = False  # in the rotation


class Turns(Generic[T]):
    """Starts jobs, each when its turn comes; for one thread.

    A host's jobs start in the order they were added; hosts with something to do take turns. Waiting costs no more
    than its place in a queue.
    """

    def __init__(self, start: Callable[[T], None], *, at_once: int, per_host: int) -> None:
        self._start, self._at_once, self._per_host = start, at_once, per_host
        self._hosts: dict[str, _Host[T]] = {}
        self._rotation: deque[str] = deque()
        self._active = 0

    def add(self, host: str, job: T) -> None:
        """Start a job on a host now or later; whoever runs it calls `done` at its end."""
        self._hosts.setdefault(host, _Host()).waiting.append(job)
        self._go(host)

    def done(self, host: str) -> None:
        """A job on a host has ended."""
        self._hosts[host].active -= 1
        self._active -= 1
        self._go(host)

    def hold(self, host: str) -> None:
        """Start nothing more on a host until as many calls of `release`."""
        self._hosts.setdefault(host, _Host()).held += 1

    def release(self, host: str) -> None:
        self._hosts[host].held -= 1
        self._go(host)

    def waiting(self, host: str) -> bool:
        """Whether a host has jobs that wait."""
        return host in self._hosts and bool(self._hosts[host].waiting)

    def _ready(self, entry: _Host[T]) -> bool:
        return bool(entry.waiting) and not entry.held and entry.active < self._per_host

    def _go(self, host: str) -> None:
        self._enter(host)
        while self._rotation and self._active < self._at_once:
            turn = self._rotation.popleft()
            entry = self._hosts[turn]
            entry.queued = False
            if self._ready(entry):
                job = entry.waiting.popleft()
                entry.active += 1
                self._active += 1
                self._enter(turn)
                self._start(job)

    def _enter(self, host: str) -> None:
        """Put a host into the rotation if it has something to start; forget it if it has nothing at all."""
        entry = self._hosts[host]
        if self._ready(entry):
            if not entry.queued:
                entry.queued = True
                self._rotation.append(host)
        elif not (entry.queued or entry.waiting or entry.active or entry.held):
            del self._hosts[host]
