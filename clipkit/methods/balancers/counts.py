"""How often each entry occurs in a corpus: counted from rows, kept in files, and added up over parts."""

from __future__ import annotations

import collections
import gzip
import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, Any, cast

import msgspec
import numpy as np

from clipkit.errors import ClipkitError, UsageError
from clipkit.methods.balancers.entries import Entries
from clipkit.methods.balancers.metaclip import Expected, Limits, Lists
from clipkit.methods.balancers.rows import Counter
from clipkit.stream.record import Record
from clipkit.stream.spool import Rows

KIND = "balance-counts"
FORMAT = 1
SAMPLED = 65_536  # records whose entries go with the counts into a file


@dataclass(frozen=True)
class Counts:
    """What a corpus says of a list of entries.

    settings: what else decides which captions count, as JSON. records: how many were read; matched: how many have an
    entry in a caption that is judged; texts: captions. found: language ("" for all) -> how many texts contain each
    entry, i64 [entries]. lists, tickets (u64): of the matched records those of the smallest tickets, or all.
    part: (i, n) where only part i of n was read, as --shard has it.
    """

    entries: Entries
    settings: Mapping[str, Any]
    records: int
    matched: int
    texts: int
    found: Mapping[str, np.ndarray]
    lists: Lists
    tickets: np.ndarray
    part: tuple[int, int] | None = None

    @classmethod
    def of(cls, rows: Rows, entries: Entries, settings: Mapping[str, Any]) -> Counts:
        """Count rows that `rows.pack` made."""
        counter = Counter(len(entries), per_language=settings["per_language"])
        counter.read(rows)
        lists, tickets = counter.lists()
        return cls(entries, settings, len(rows), len(lists), counter.texts, counter.found, lists, tickets)

    @property
    def matches(self) -> int:
        """All counts together."""
        return sum(int(found.sum()) for found in self.found.values())

    @property
    def complete(self) -> bool:
        """Whether the lists are those of all matched records."""
        return len(self.lists) == self.matched

    def expected(self, limits: Limits) -> tuple[Expected, float]:
        """How many records are kept on average; and the standard error of that, 0 where the lists are complete."""
        return self.lists.expected(self.found, limits).of(self.matched)

    def sampled(self, most: int = SAMPLED) -> Counts:
        """The same with at most so many lists."""
        if len(self.lists) <= most:
            return self
        first = np.argsort(self.tickets, kind="stable")[:most]
        return replace(self, lists=self.lists.take(first), tickets=self.tickets[first])

    @classmethod
    def merged(cls, parts: Sequence[Counts]) -> Counts:
        """The counts of parts of a corpus together; the parts are of the same entries and settings.

        The smallest tickets of all are among the smallest of each part, so the sample is that of the whole.
        """
        empty = np.zeros(len(parts[0].entries), np.int64)
        languages = sorted({language for part in parts for language in part.found})
        together = cls(
            parts[0].entries,
            parts[0].settings,
            sum(part.records for part in parts),
            sum(part.matched for part in parts),
            sum(part.texts for part in parts),
            {name: np.sum([part.found.get(name, empty) for part in parts], axis=0) for name in languages},
            Lists.joined([part.lists for part in parts]),
            np.concatenate([part.tickets for part in parts]),
        )
        return together.sampled()

    # As a file

    def to_records(self) -> Iterator[Record]:
        """What the counts are about, each entry that occurs, the most frequent first, and the sample."""
        kept = self.sampled()
        about = {"name": self.entries.name, "entries": len(self.entries), "digest": self.entries.digest}
        head = {"kind": KIND, "format": FORMAT, "metadata": about, "settings": dict(self.settings)}
        numbers = {"records": self.records, "matched": self.matched, "texts": self.texts, "sampled": len(kept.lists)}
        yield Record(
            {
                **head,
                **({"part": "{}/{}".format(*self.part)} if self.part else {}),
                **numbers,
                "languages": sorted(self.found),
            }
        )
        for language in sorted(self.found):
            for name, count in self.ranked(language):
                yield Record({"kind": "count", "entry": name, "count": count, **_lang(language)})
        for at in np.argsort(kept.tickets, kind="stable"):
            listed = kept.lists.entries[kept.lists.starts[at] : kept.lists.starts[at + 1]].tolist()
            language = kept.lists.names[kept.lists.languages[at]]
            yield Record({"kind": "sample", "ticket": f"{kept.tickets[at]:016x}", "entries": listed, **_lang(language)})

    def ranked(self, language: str = "") -> Iterator[tuple[str, int]]:
        """Entries that occur in a language and their counts, the most frequent first, then by name."""
        found = self.found[language]
        for number in np.argsort(-found, kind="stable").tolist():
            if not found[number]:
                return
            yield self.entries.names[number], int(found[number])


def _lang(language: str) -> dict[str, str]:
    return {"lang": language} if language else {}


def load_counts(paths: Sequence[str], entries: Entries, settings: Mapping[str, Any]) -> Counts:
    """The counts of files, together. Raises UsageError for a file of other entries or settings, a damaged one, one that
    counts what another has counted, and where parts of a whole are missing."""
    parts = [_load(path, entries, settings) for path in paths]
    for number, part in enumerate(parts):
        for before in range(number):
            if len(part.tickets) and np.array_equal(np.sort(parts[before].tickets), np.sort(part.tickets)):
                raise UsageError(
                    f"--counts {paths[before]} and {paths[number]} count the same records", "name each part once"
                )
    _check_parts([part.part for part in parts if part.part])
    return Counts.merged(parts)


def _check_parts(parts: Sequence[tuple[int, int]]) -> None:
    """Raise UsageError where not all parts of a whole are there. Two wholes may be in as many parts."""
    times = collections.Counter(parts)
    for many in sorted({many for _, many in parts}):
        found = [number for number, of in times if of == many]
        if missing := many - len(found):
            first = next(number for number in itertools.count(1) if number not in found)
            more = f", and {missing - 1:,} more" if missing > 1 else ""
            hint = f"count it too: clipkit balance count SOURCE --shard {first}/{many} -o FILE"
            raise UsageError(f"--counts: part {first}/{many} is missing{more}", hint)
        often, seldom = (choose(found, key=lambda number: times[number, many]) for choose in (max, min))
        if times[often, many] > times[seldom, many]:
            said = f"part {often}/{many} is given more often than {seldom}/{many}"
            raise UsageError(f"--counts: {said}", "name each part once")


def _load(path: str, entries: Entries, settings: Mapping[str, Any]) -> Counts:
    lines = _lines(path)
    head = next(lines, {})
    if head.get("kind") != KIND:
        raise UsageError(f"--counts {path} holds no counts", "clipkit balance count writes them")
    if head.get("format") != FORMAT:
        raise ClipkitError(
            f"--counts {path} has format {head.get('format')!r}, this clipkit knows {FORMAT}", "upgrade clipkit"
        )
    try:
        _check(path, head, entries, settings)
        return _parsed(head, lines, entries, settings)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        raise UsageError(f"--counts {path} is damaged", "write it anew with clipkit balance count") from None


def _check(path: str, head: Mapping[str, Any], entries: Entries, settings: Mapping[str, Any]) -> None:
    about = head["metadata"]
    if about["digest"] != entries.digest:
        raise UsageError(
            f"--counts {path} are of other entries: {about['name']}@{about['digest'][:8]}, here {entries.identity}",
            "give the --metadata (and --per-language) that they were made with",
        )
    if head["settings"] != dict(settings):
        raise UsageError(
            f"--counts {path} were made with {_spelt(head['settings'])}, not with {_spelt(settings)}",
            "give the same flags, or count anew",
        )


def _spelt(settings: Mapping[str, Any]) -> str:
    """Settings as the flags that give them."""
    flags = [f"--per-{settings['per']}"] if settings["per"] else []
    flags += ["--per-language"] if settings["per_language"] else []
    flags += [f"--seed {settings['seed']}"] if settings.get("seed") is not None else []
    return " ".join(flags) or "none of --per-text, --per-image and --per-language"


def _parsed(
    head: Mapping[str, Any], lines: Iterable[dict[str, Any]], entries: Entries, settings: Mapping[str, Any]
) -> Counts:
    found = {str(language): np.zeros(len(entries), np.int64) for language in head["languages"]}
    names = tuple(found)
    numbers, listed, lengths, languages, tickets = {n: i for i, n in enumerate(names)}, [], [0], [], []
    for line in lines:
        language = line.get("lang", "")
        if line["kind"] == "count":
            found[language][entries.number(line["entry"], language)] = _whole(line["count"])
        else:
            listed += line["entries"]
            lengths.append(len(line["entries"]))
            languages.append(numbers[language])
            tickets.append(int(line["ticket"], 16))
    lists = Lists(np.array(listed, np.uint32), np.cumsum(lengths), np.array(languages, np.uint16), names)
    if len(lists) != head["sampled"] or (len(listed) and max(listed) >= len(entries)) or 0 in lengths[1:]:
        raise ValueError("not all of the sample is there")
    records, matched, texts = (_whole(head[name]) for name in ("records", "matched", "texts"))
    part = _part(head["part"]) if "part" in head else None
    return Counts(entries, settings, records, matched, texts, found, lists, np.array(tickets, np.uint64), part)


def _part(value: Any) -> tuple[int, int]:
    number, many = map(int, str(value).split("/"))
    if not 1 <= number <= many:
        raise ValueError(value)
    return number, many


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(value)
    return value


def _lines(path: str) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, which may be packed."""
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    try:
        with _opened(path) as file:
            for line in file:
                yield decode(line)
    except (msgspec.MsgspecError, UnicodeError, EOFError, zlib.error, gzip.BadGzipFile):
        raise UsageError(f"--counts {path} is damaged", "write it anew with clipkit balance count") from None
    except OSError as error:
        raise UsageError(f"--counts {path} cannot be read: {error.strerror or error}") from None


def _opened(path: str) -> IO[bytes]:
    if path.endswith(".gz"):
        return cast(IO[bytes], gzip.open(path, "rb"))
    if path.endswith(".zst"):
        import zstandard

        return cast(IO[bytes], zstandard.open(path, "rb"))
    return open(path, "rb")
