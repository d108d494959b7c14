"""What is remembered of a record while a corpus is counted: its ticket, its language, the entries of its captions."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np

from clipkit.errors import UsageError
from clipkit.methods.balancers.metaclip import Lists
from clipkit.stream.hashing import ticket
from clipkit.stream.spool import Rows

LANGUAGE_BYTES = 12
MOST_LANGUAGES = 1000  # MetaCLIP 2 has 329; each takes 8 bytes an entry
_TICKET_BYTES = 8
_JUDGED, _COUNTED = 0xFFFFFFFF, 0xFFFFFFFE  # either begins a caption; entries are numbered below
_BLOCK = 1 << 16  # rows unpacked at once


def sample_ticket(name: str | bytes) -> bytes:
    """8 random bytes of a record's name: the records of the smallest are the sample that goes with counts."""
    return ticket(name, 0, "balance-sample")[:_TICKET_BYTES]


def pack(drawn: bytes, language: bytes | None, captions: Iterable[tuple[bool, Iterable[int]]]) -> bytes:
    """A record as a row. drawn: its `sample_ticket`. language: at most LANGUAGE_BYTES bytes; None where none count.

    captions: of each whether it is judged or only counted, and the entries in it.
    """
    words = array("I")
    for judged, entries in captions:
        words.append(_JUDGED if judged else _COUNTED)
        words.extend(entries)
    head = drawn if language is None else drawn + language.ljust(LANGUAGE_BYTES, b"\0")
    return head + words.tobytes()


def unpack(row: bytes, *, per_language: bool) -> tuple[str, list[list[int]]]:
    """The language of a row ("" where none count), and the entries of its captions: none of one that is not judged."""
    head = _TICKET_BYTES + LANGUAGE_BYTES * per_language
    captions: list[list[int]] = []
    judged = False
    for word in array("I", row[head:]):
        if word >= _COUNTED:
            captions.append([])
            judged = word == _JUDGED
        elif judged:
            captions[-1].append(word)
    return row[_TICKET_BYTES:head].rstrip(b"\0").decode(), captions


class Counter:
    """Counts rows, in blocks of them. Raises UsageError for more than MOST_LANGUAGES languages.

    texts: captions so far. found: language ("" for all) -> how many captions contain each entry, i64 [entries].
    """

    def __init__(self, entries: int, *, per_language: bool) -> None:
        self.texts = 0
        self.found: dict[str, np.ndarray] = {} if per_language else {"": np.zeros(entries, np.int64)}
        self._entries, self._per_language = entries, per_language
        self._head = (_TICKET_BYTES + LANGUAGE_BYTES * per_language) // 4  # words
        self._numbers: dict[str, int] = {} if per_language else {"": 0}
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []

    def read(self, rows: Rows) -> None:
        """Take all rows. Keeps the entries of captions that are judged, 4 bytes each, and some 20 bytes a record."""
        lengths, file = rows.lengths, rows.file
        file.seek(0)
        for start in range(0, len(lengths), _BLOCK):
            widths = np.array(lengths[start : start + _BLOCK], np.int64)
            self._add(np.frombuffer(file.read(int(widths.sum())), "<u4"), widths // 4)

    def _add(self, words: np.ndarray, widths: np.ndarray) -> None:
        starts = np.cumsum(widths) - widths
        heads = words[starts[:, None] + np.arange(self._head)]  # u32 [rows, head]
        languages = self._languages(heads[:, 2:])
        body = np.ones(len(words), bool)
        body[starts[:, None] + np.arange(self._head)] = False
        begins = body & (words >= _COUNTED)
        at = np.flatnonzero(body & ~begins)
        text = np.cumsum(begins)[at] - 1
        begin = np.flatnonzero(begins)
        row = np.searchsorted(starts, begin, "right")[text] - 1
        self.texts += len(begin)
        self._count(words[at], languages[row])
        judged = (words[begin] == _JUDGED)[text]
        lengths = np.bincount(row[judged], minlength=len(starts))
        some = lengths > 0
        tickets = np.ascontiguousarray(heads[:, :2]).view(">u8").ravel()
        self._parts.append(
            (words[at[judged]], lengths[some], languages[some].astype(np.uint16), tickets[some].astype(np.uint64))
        )

    def _languages(self, heads: np.ndarray) -> np.ndarray:
        """The number of each row's language, i64 [rows]. heads: u32 [rows, 3 or 0]."""
        if not self._per_language:
            return np.zeros(len(heads), np.int64)
        spelt, inverse = np.unique(np.ascontiguousarray(heads).view(f"S{LANGUAGE_BYTES}").ravel(), return_inverse=True)
        numbers = [self._numbers.setdefault(one.decode(), len(self._numbers)) for one in spelt.tolist()]
        if len(self._numbers) > MOST_LANGUAGES:
            said = f"`lang` has more than {MOST_LANGUAGES:,} values, such as {', '.join(sorted(self._numbers)[:3])}"
            raise UsageError(said, "--per-language goes by language codes: name their field with --map lang=FIELD")
        return np.asarray(numbers, np.int64)[inverse]

    def _count(self, entries: np.ndarray, languages: np.ndarray) -> None:
        for name, number in self._numbers.items():
            here = entries[languages == number] if self._per_language else entries
            known = self.found.setdefault(name, np.zeros(self._entries, np.int64))
            if len(here):
                known += np.bincount(here, minlength=self._entries)

    def lists(self) -> tuple[Lists, np.ndarray]:
        """The entries of the records that have some in a caption that is judged, and their tickets, u64 [n]."""
        columns = list(zip(*self._parts, strict=True)) or [[]] * 4
        entries, lengths, languages, tickets = (np.concatenate(c) if len(c) else np.empty(0, "u4") for c in columns)
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        return Lists(entries, starts, languages, tuple(self._numbers)), tickets.astype(np.uint64)
