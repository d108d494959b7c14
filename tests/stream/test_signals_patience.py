"""A stop that waits for the end of a step."""

from __future__ import annotations

import os
import signal

import pytest

from clipkit.errors import Terminated
from clipkit.stream.signals import Patience, Signals


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_the_first_waits_until_it_is_fired(number: int, raised: type[BaseException]) -> None:
    before = signal.getsignal(number)
    told: list[str] = []
    with pytest.raises(raised), Signals() as signals, Patience(lambda: told.append("heard")) as patience:
        patience.fire()
        send(number)
        send(signal.SIGTERM)
        assert told == ["heard"]
        assert patience.noted == number and signals.fired is None
        patience.fire()
    assert isinstance(signals.fired, raised)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_does_not(first: int) -> None:
    with pytest.raises(KeyboardInterrupt), Signals(), Patience():
        send(first)
        send(signal.SIGINT)


def test_what_was_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Signals(), Patience() as patience:
            send(signal.SIGINT)
            assert patience.noted is None
    finally:
        signal.signal(signal.SIGINT, before)
