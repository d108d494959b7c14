"""The greedy soup: ingredients are added, the best first, as long as the soup gets better for it.

Model soups (Wortsman et al., 2022): the paper adds an ingredient if the held-out accuracy does not fall, its code only
if it rises. Here it must rise: what changes nothing that can be measured is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from clipkit.soups.measuring import Measure


@dataclass(frozen=True)
class Tried:
    """One ingredient. number: which of the models it is. alone: what it came to by itself; together: the soup with it
    (of the first: itself); taken: whether it is in from here on."""

    number: int
    alone: Measure
    together: Measure
    taken: bool


def greedy(alone: Sequence[Measure], measure: Callable[[Sequence[int]], Measure]) -> Iterator[Tried]:
    """Try each model in the order of what it came to alone, the best first; equal ones in the order they are named.

    measure: what the soup of some models comes to, by their numbers, all with one weight; asked for two or more.
    So the soup is never below the best single model on what is measured.
    """
    order = sorted(range(len(alone)), key=lambda number: -alone[number].value)
    soup: list[int] = []
    best = None
    for number in order:
        together = measure([*soup, number]) if soup else alone[number]
        taken = best is None or together.value > best
        if taken:
            soup.append(number)
            best = together.value
        yield Tried(number, alone[number], together, taken)
