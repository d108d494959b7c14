"""Whose turn it is, whatever comes when."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from clipkit.fetching.turns import Turns

# Each step adds a job on a host, ends the oldest that runs, or holds or releases a host.
steps = st.lists(st.tuples(st.sampled_from(["add", "done", "hold", "release"]), st.sampled_from("abc")), max_size=80)


@given(steps, st.integers(1, 4), st.integers(1, 3))
def test_limits_hold_order_holds_and_nothing_is_left_behind(
    plan: list[tuple[str, str]], at_once: int, per_host: int
) -> None:
    running: list[tuple[str, int]] = []
    started: list[tuple[str, int]] = []
    held: Counter[str] = Counter()

    def start(job: tuple[str, int]) -> None:
        assert not held[job[0]]
        running.append(job)
        started.append(job)

    turns: Turns[tuple[str, int]] = Turns(start, at_once=at_once, per_host=per_host)
    added = []
    for number, (action, host) in enumerate(plan):
        if action == "add":
            added.append((host, number))
            turns.add(host, added[-1])
        elif action == "done" and running:
            turns.done(running.pop(0)[0])
        elif action == "hold":
            held[host] += 1
            turns.hold(host)
        elif action == "release" and held[host]:
            held[host] -= 1
            turns.release(host)
        assert len(running) <= at_once
        assert all(count <= per_host for count in Counter(host for host, _ in running).values())
    for host, count in held.items():
        for _ in range(count):
            held[host] -= 1
            turns.release(host)
    while running:
        turns.done(running.pop(0)[0])
    assert sorted(started) == sorted(added)
    for host in "abc":
        assert [job for job in started if job[0] == host] == [job for job in added if job[0] == host]
        assert not turns.waiting(host)


def test_hosts_take_turns() -> None:
    started: list[str] = []
    turns: Turns[str] = Turns(started.append, at_once=1, per_host=1)
    for job in ("a1", "a2", "a3", "b1", "c1"):
        turns.add(job[0], job)
    for _ in range(4):
        turns.done(started[-1][0])
    assert started == ["a1", "b1", "c1", "a2", "a3"]
