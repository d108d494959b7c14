"""Which of many entries a text contains: Aho-Corasick over all of them at once."""

from __future__ import annotations

from collections.abc import Iterable

import ahocorasick


class Matcher:
    """Finds each of the patterns that a text contains, in one pass over it.

    What a pattern has to be bounded by (spaces, say) is part of it.
    patterns: (text, number) pairs; several may have one number, or one text. Empty texts are found nowhere.
    """

    def __init__(self, patterns: Iterable[tuple[str, int]]) -> None:
        self._automaton = ahocorasick.Automaton()
        for text, number in patterns:
            if text:
                known = self._automaton.get(text, ())
                self._automaton.add_word(text, known if number in known else (*known, number))
        self.empty = not len(self._automaton)
        self._automaton.make_automaton()

    def find(self, text: str) -> set[int]:
        """The numbers of the patterns that a text contains."""
        if self.empty:
            return set()
        found: set[int] = set()
        for _, numbers in self._automaton.iter(text):
            found.update(numbers)
        return found
