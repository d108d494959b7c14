"""Captions made wrong on purpose, by a known share: what ablations need, and what a filter is measured on."""

from __future__ import annotations

import hashlib
import math
import mmap
import struct
import unicodedata
from array import array
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from typing import TYPE_CHECKING, Any, ClassVar, Final

from clipkit.errors import RecordError
from clipkit.stream.captions import captions
from clipkit.stream.hashing import name_of, ticket, value_name
from clipkit.stream.record import Record
from clipkit.stream.spool import Rows
from clipkit.stream.stage import Outcome, Row, Stage
from clipkit.stream.table import Column
from clipkit.stream.whole import WholeStage

if TYPE_CHECKING:
    import numpy as np

_HEAD: Final = struct.Struct("<16s8s8s")  # ticket, what the text is, what the image is; the captions follow as JSON
_SHUFFLE: Final = "shuffle"
_MADE_BEFORE: Final = ("scores", "emb.text")  # by verbs that may have seen the true caption

COLUMNS = (
    Column("id", 24, lambda record: record.id or ""),
    Column("text", 44, lambda record: str(record.get("text") or "")),
    Column("instead of", 44, lambda record: str(record.lookup("corrupted.text") or "")),
)


class _Corrupting(Stage):
    """What both stages do with a record: which take part, and what is written of it."""

    adds: ClassVar[tuple[str, ...]] = ("corrupted", "texts")
    inline: ClassVar[bool] = True
    reads: tuple[str, ...] = ("text",)
    defaults: ClassVar[dict[str, Any]] = {"seed": 0}

    def setup(self) -> None:
        self._share = Fraction(str(self.config["share"]))
        self._before = self._stale = 0

    @property
    def notices(self) -> list[str]:
        said = []
        if self._before:
            said.append(f"{self._before:,} records were corrupted already, and stay as they are")
        if self._stale:
            fields = " or ".join(_MADE_BEFORE)
            said.append(f"{self._stale:,} corrupted records have {fields} from before, perhaps of the true caption")
        return said

    def _takes_part(self, record: Record) -> bool:
        """Whether it has a caption that is still its own. Raises RecordError where the caption is no text."""
        if not isinstance(record["text"], str):
            raise RecordError("bad-field", "field 'text' is not a string")
        if record.get("corrupted") is not None:
            self._before += 1
            return False
        return bool(record["text"].strip())

    def _mark(self, record: Record, by: str, new: str) -> Record:
        """The record with another caption, and the true one where no training looks for it."""
        self._stale += any(record.lookup(name) is not None for name in _MADE_BEFORE)
        via, true = f"{self.verb}/{by}", record["text"]
        record.add_all({"text": new, "corrupted": {"by": by, "text": true}}, {"text": via, "corrupted": via})
        return record


class CorruptShuffle(_Corrupting, WholeStage):
    """A share of the records exchange their captions among themselves: `text`, with all `texts`.

    config: share (of the records with a caption, rounded), seed. Those that come first by hash of their ids take part,
    so a larger share of one seed contains a smaller one; then each gets the captions of another. Nobody gets a text
    that is its own but for case and white space, or one of a record with the same image, as long as no more than half
    of those that take part share one; where it cannot be avoided a record keeps its captions, unmarked.
    Holds some 80 bytes a record while it decides, and 150 more of each that takes part.
    """

    verb: ClassVar[str] = "corrupt"

    def setup(self) -> None:
        super().setup()
        self._kept = 0
        self._pieces: mmap.mmap | None = None

    @property
    def notices(self) -> list[str]:
        records = "record keeps its caption" if self._kept == 1 else "records keep their captions"
        kept = f"{self._kept:,} {records}: too many of those that were drawn have the same"
        return [*super().notices, *([kept] if self._kept else [])]

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._row(record) for record in items]

    def _row(self, record: Record) -> Outcome:
        try:
            if not self._takes_part(record):
                return Row(b"")
            captions(record)  # raises for `texts` that are none
            drawn = ticket(name_of(record), self.config["seed"], "corrupt")
            image = record.get("image")
            alike = _digest(value_name(image)) if image is not None else bytes(8)
            piece = Record()
            for name in ("text", "texts"):
                if name in record:
                    piece.take(name, record, name)
            return Row(_HEAD.pack(drawn, _digest(_plain(record["text"]).encode()), alike) + piece.encode())
        except RecordError as error:
            return error

    def learn(self, rows: Rows) -> None:
        self._partner = array("q", [-1]) * len(rows)
        numbers, heads = array("q"), bytearray()
        for number, row in enumerate(rows.data()):
            if row:
                numbers.append(number)
                heads += row[: _HEAD.size]
        count = math.floor(self._share * len(numbers) + Fraction(1, 2))
        if not count:
            return
        import numpy as np

        table = np.frombuffer(heads, [("high", ">u8"), ("low", ">u8"), ("text", "<u8"), ("image", "<u8")])
        chosen = np.lexsort((table["low"], table["high"]))[:count]
        text, image = table["text"][chosen], table["image"][chosen]
        alike = _alike(text, image)
        if np.bincount(alike).max() * 2 > count:  # no more than texts can be told apart
            alike = np.unique(text, return_inverse=True)[1]
        given = exchange_rows(alike)
        changed = text != text[given]
        given = _past(given, ~changed)
        self._kept = int(count - changed.sum())
        rows_of, partner = np.asarray(numbers), np.asarray(self._partner)
        partner[rows_of[chosen[changed]]] = rows_of[chosen[given[changed]]]
        self._starts = array("Q", accumulate(rows.lengths, initial=0))
        self._pieces = mmap.mmap(rows.file.fileno(), 0, access=mmap.ACCESS_READ)

    def decide(self, record: Record, row: bytes, number: int) -> Outcome:
        partner = self._partner[number]
        if partner < 0:
            return record
        assert self._pieces is not None
        other = Record.parse(self._pieces[self._starts[partner] + _HEAD.size : self._starts[partner + 1]])
        changed = self._mark(record, _SHUFFLE, other["text"])
        if "texts" in other:
            changed.take("texts", other, "texts")
        else:
            changed.discard("texts")
        return changed

    def close(self) -> None:
        if getattr(self, "_pieces", None) is not None:
            self._pieces.close()  # type: ignore[union-attr]


class CorruptWords(_Corrupting):
    """A share of each caption's words (what white space parts) is dropped, or they change places with each other.

    config: by (`drop-words` or `swap-words`), share, seed. How many: the share of the words, rounded; one word stays at
    least, and a swap takes two. Which: by hash of the record's id and the caption. All that is no negative in `texts`
    is treated as the caption is: none of it tells the true one. What has too few words stays as it is, unmarked.
    """

    verb: ClassVar[str] = "corrupt"

    def process(self, items: list[Any]) -> list[Outcome]:
        return [self._outcome(record) for record in items]

    def _outcome(self, record: Record) -> Outcome:
        try:
            if not self._takes_part(record):
                return record
            captions(record)
        except RecordError as error:
            return error
        name = name_of(record)
        new = self._corrupted(record["text"], name)
        listed = record.get("texts")
        if new == record["text"]:
            return record
        changed = self._mark(record, self.config["by"], new)
        if listed is not None:
            changed["texts"] = [self._entry(entry, name) for entry in listed]
        return changed

    def _entry(self, entry: Any, name: str | bytes) -> Any:
        if isinstance(entry, str):
            return self._corrupted(entry, name)
        return entry if entry.get("negative") else {**entry, "text": self._corrupted(entry["text"], name)}

    def _corrupted(self, text: str, name: str | bytes) -> str:
        words = text.split()
        count = math.floor(self._share * len(words) + Fraction(1, 2))
        if not count or len(words) < 2:
            return text
        order = self._order(text, name, len(words))
        if self.config["by"] == "drop-words":
            gone = set(order[: min(count, len(words) - 1)])
            return " ".join(word for place, word in enumerate(words) if place not in gone)
        places = order[: max(count, 2)]
        given = exchange([words[place].casefold() for place in places])
        swapped = list(words)
        for place, source in zip(places, given, strict=True):
            swapped[place] = words[places[source]]
        return " ".join(swapped) if swapped != words else text

    def _order(self, text: str, name: str | bytes, count: int) -> list[int]:
        """The words' places, in the order in which they are drawn."""
        seed, named = self.config["seed"], name if isinstance(name, bytes) else name.encode("utf-8", "surrogatepass")
        tickets = [
            ticket(b"%b\0%b\0%d" % (named, text.encode(), place), seed, "corrupt-words") for place in range(count)
        ]
        return sorted(range(count), key=tickets.__getitem__)


def exchange(alike: Sequence[Any]) -> list[int]:
    """Whose thing each gets, a permutation: nobody one like its own as long as no kind makes up more than half.

    alike: of each its kind. The kinds are laid out one after the other and everything moves on by the size of the
    largest: what is of one kind is then out of reach of itself; of a kind with m of n things, 2m - n meet their own.
    Things that are all different move on by one, in the order given.
    """
    first: dict[Any, list[int]] = {}
    for number, kind in enumerate(alike):
        first.setdefault(kind, []).append(number)
    line = [number for group in first.values() for number in group]
    step = max(map(len, first.values()), default=0)
    given = [0] * len(line)
    for place, number in enumerate(line):
        given[number] = line[(place + step) % len(line)]
    return given


def exchange_rows(alike: np.ndarray) -> np.ndarray:
    """As `exchange`, of whole numbers [n] and for millions of them."""
    import numpy as np

    _, first, kinds, sizes = np.unique(alike, return_index=True, return_inverse=True, return_counts=True)
    line = np.argsort(first[kinds], kind="stable")
    given = np.empty_like(line)
    given[line] = np.roll(line, -int(sizes.max()))
    return given


def _past(given: np.ndarray, out: np.ndarray) -> np.ndarray:
    """The permutation [n] without those that are out [n]: who would get a thing of theirs gets what they would get."""
    import numpy as np

    jump = np.where(out, given, np.arange(len(given)))
    for _ in range(len(given).bit_length()):
        jump = jump[jump]
    passed: np.ndarray = jump[given]
    return passed


def _alike(text: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Numbers of what belongs together: records of one text, of one image, and of what these have in common."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    texts = np.unique(text, return_inverse=True)[1]
    images = np.unique(np.where(image, image, np.arange(1, len(image) + 1, dtype=np.uint64)), return_inverse=True)[1]
    size = len(text)
    edges = coo_array((np.ones(size, bool), (texts, images + size)), shape=(2 * size, 2 * size))
    groups: np.ndarray = connected_components(edges, directed=False)[1][texts]
    return groups


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()
