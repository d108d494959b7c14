"""Which of many entries a text contains: Aho-Corasick over all of them at once (Aho and Corasick, 1975)."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

import ahocorasick

_NUMBER = itemgetter(1)  # of an end in the text and a number


class Matcher:
    """Finds each of the patterns that a text contains, in one pass over it.

    What a pattern has to be bounded by (spaces, say) is part of it.
    patterns: (text, number) pairs, numbers from 0; several may have one number, or one text. Empty texts are found
    nowhere.
    """

    def __init__(self, patterns: Iterable[tuple[str, int]]) -> None:
        numbers: dict[str, int | tuple[int, ...]] = {}
        for text, number in patterns:
            known = numbers.setdefault(text, number)
            if known != number:
                several = known if isinstance(known, tuple) else (known,)
                numbers[text] = tuple(dict.fromkeys((*several, number)))
        numbers.pop("", None)
        self._automaton = ahocorasick.Automaton()
        self._several: dict[int, tuple[int, ...]] = {}  # negative stand-ins for texts of more than one number
        for text, found in numbers.items():
            if isinstance(found, tuple):
                stand_in = -1 - len(self._several)
                self._several[stand_in] = found
                found = stand_in
            self._automaton.add_word(text, found)
        self.empty = not numbers
        self._automaton.make_automaton()

    def find(self, text: str) -> set[int]:
        """The numbers of the patterns that a text contains."""
        if self.empty:
            return set()
        found = set(map(_NUMBER, self._automaton.iter(text)))  # no step of Python a hit
        if self._several:
            for stand_in in found & self._several.keys():
                found.remove(stand_in)
                found.update(self._several[stand_in])
        return found
