"""Which ids were seen: a hash table of plain machine words, so that millions of records cost tens of bytes each."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import chain, islice
from operator import lt
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_WORD = 0xFFFFFFFFFFFFFFFF


class HashTable:
    """A map from 64-bit hashes to 64-bit values, 24 to 48 bytes an entry (a dict of ints takes over 100).

    Keys must be well mixed (a cryptographic or keyed hash): the low bits choose the slot. Open addressing with
    linear probing, at most two thirds full.
    """

    __slots__ = ("_keys", "_mask", "_room", "_size", "_values", "_zero")

    def __init__(self) -> None:
        self._zero: int | None = None  # the value of key 0, which marks a free slot in the table
        self._size = 0
        self._allocate(1024)

    def _allocate(self, slots: int) -> None:
        self._keys = array("Q", [0]) * slots
        self._values = array("Q", [0]) * slots
        self._mask = slots - 1
        self._room = slots * 2 // 3

    def __len__(self) -> int:
        return self._size + (self._zero is not None)

    @property
    def nbytes(self) -> int:
        """Memory of the two arrays, in bytes."""
        return 16 * len(self._keys)

    def get(self, hash64: int) -> int | None:
        """The value of a key, or None. `hash64` and values are in 0 .. 2**64 - 1."""
        if not hash64:
            return self._zero
        keys, mask = self._keys, self._mask
        slot = hash64 & mask
        while found := keys[slot]:
            if found == hash64:
                return self._values[slot]
            slot = (slot + 1) & mask
        return None

    def set(self, hash64: int, value: int) -> None:
        """Set the value of a key, new or not."""
        if not hash64:
            self._zero = value
            return
        keys, mask = self._keys, self._mask
        slot = hash64 & mask
        while found := keys[slot]:
            if found == hash64:
                self._values[slot] = value
                return
            slot = (slot + 1) & mask
        self._insert(slot, hash64, value)

    def setdefault(self, hash64: int, value: int) -> int | None:
        """The value a key has already; None if it is new, and then it has `value` from now on."""
        if not hash64:
            before, self._zero = self._zero, value if self._zero is None else self._zero
            return before
        keys, mask = self._keys, self._mask
        slot = hash64 & mask
        while found := keys[slot]:
            if found == hash64:
                return self._values[slot]
            slot = (slot + 1) & mask
        self._insert(slot, hash64, value)
        return None

    def _insert(self, slot: int, hash64: int, value: int) -> None:
        self._keys[slot], self._values[slot] = hash64, value
        self._size += 1
        if self._size > self._room:
            self._grow()

    def _grow(self) -> None:
        old_keys, old_values = self._keys, self._values
        self._allocate(2 * len(old_keys))
        keys, values, mask = self._keys, self._values, self._mask
        for hash64, value in zip(old_keys, old_values, strict=True):
            if hash64:
                slot = hash64 & mask
                while keys[slot]:
                    slot = (slot + 1) & mask
                keys[slot], values[slot] = hash64, value

    def insert_new(self, hashes: Sequence[int], values: Sequence[int]) -> bool:
        """Set keys that must all be new and different, some thousands at once: False, and nothing is set, if not.

        hashes: as Python's `hash` gives them, signed.
        """
        import numpy as np

        new = np.asarray(hashes, np.int64).view(np.uint64)
        if not len(new):
            return True
        if not new.all() or len(np.unique(new)) < len(new):
            return False
        while self._size + len(new) > self._room:
            self._double()
        table, mask = np.frombuffer(self._keys, np.uint64), np.uint64(self._mask)
        slots = new & mask
        waiting = np.arange(len(new))  # those whose slot was taken by another key
        while len(waiting):
            found = table[slots[waiting]]
            if (found == new[waiting]).any():
                return False
            waiting = waiting[found != 0]
            slots[waiting] = (slots[waiting] + np.uint64(1)) & mask
        self._place(new, np.asarray(values, np.uint64))
        self._size += len(new)
        return True

    def _double(self) -> None:
        """As `_grow`, with arrays."""
        import numpy as np

        keys, values = np.frombuffer(self._keys, np.uint64), np.frombuffer(self._values, np.uint64)
        used = keys != 0
        keys, values = keys[used], values[used]
        self._allocate(2 * len(self._keys))
        self._place(keys, values)

    def _place(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Write keys, each of them new, into free slots: all to their first choice, and who lost it to the next."""
        import numpy as np

        table, held = np.frombuffer(self._keys, np.uint64), np.frombuffer(self._values, np.uint64)
        mask = np.uint64(self._mask)
        slots = keys & mask
        while len(keys):
            free = table[slots] == 0
            table[slots[free]] = keys[free]
            won = table[slots] == keys
            held[slots[won]] = values[won]
            lost = ~won
            keys, values, slots = keys[lost], values[lost], (slots[lost] + np.uint64(1)) & mask


_NOT_WORTH_ARRAYS = 20_000  # ids: numpy takes longer to import than they do one by one
_FEW = 1 << 19  # ids up to which a set is used, which needs no array library


class UniqueIds:
    """Ids of which each may come once, and where each came; they can be noted in bulk. Hashed as in SeenIds.

    As long as they come in ascending order none can come twice, and their hashes are only kept for later, 8 bytes each.
    Then up to half a million are in a set, 80 bytes each, and more in a table of 24 to 48 bytes each.
    """

    def __init__(self) -> None:
        self._last: str | None = ""  # the highest id; None once one came that was not higher
        self._set: set[int] = set()
        self._hashes = array("q")  # of the set, in the order in which they came
        self._places: list[Any] = []  # theirs, in pieces: ranges, lists and arrays
        self._table: HashTable | None = None

    def add(self, name: str, place: int) -> int | None:
        """Note an id; where it came before if it did, else None."""
        if self._table is None:
            if self._all_new((name,), (hash(name),)):
                if not (self._places and isinstance(self._places[-1], array)):
                    self._places.append(array("Q"))
                self._places[-1].append(place)
                return None
            self._to_table()
        assert self._table is not None
        return self._table.setdefault(hash(name) & _WORD, place)

    def add_all(self, names: Sequence[str], places: Sequence[int]) -> bool:
        """Note many ids; False, with none of them noted, if one was seen before or comes twice."""
        hashes = list(map(hash, names))
        if self._table is None and self._all_new(names, hashes):
            self._places.append(places)
            return True
        if self._table is None:
            self._to_table()
        assert self._table is not None
        return self._table.insert_new(hashes, places)

    def _all_new(self, names: Sequence[str], hashes: Sequence[int]) -> bool:
        """Whether none of these came before; then they are noted. If not the set is no longer of use: `_hashes` is."""
        if self._last is not None and names and self._last < names[0] and all(map(lt, names, islice(names, 1, None))):
            self._last = names[-1]
            self._hashes.extend(hashes)
            return True
        if self._last is not None:
            self._last, self._set = None, set(self._hashes) if len(self._hashes) <= _FEW else set()
        if len(self._hashes) > _FEW:
            return False
        before = len(self._set)
        self._set.update(hashes)
        if len(self._set) < before + len(hashes):
            return False
        self._hashes.extend(hashes)
        return True

    def _to_table(self) -> None:
        self._table = HashTable()
        places = array("Q", chain.from_iterable(self._places))
        few = len(places) < _NOT_WORTH_ARRAYS
        if few or not self._table.insert_new(self._hashes, places):  # (one hashes to 0, the mark of a free slot)
            for key, place in zip(self._hashes, places, strict=True):
                self._table.set(key & _WORD, place)
        self._set, self._hashes, self._places = set(), array("q"), []


class SeenIds:
    """The ids of one input, each with a number: where it was first seen, or how often.

    Ids are held as 64-bit SipHash values keyed anew in every process (Python's own `hash`): among ten million
    ids the chance of taking two different ones for equal is 3 in a million, and no input can be made to cause it.
    """

    __slots__ = ("_table",)

    def __init__(self) -> None:
        self._table = HashTable()

    def __len__(self) -> int:
        return len(self._table)

    @property
    def nbytes(self) -> int:
        return self._table.nbytes

    def add(self, name: str, number: int) -> int | None:
        """Note an id; the number it was first noted with if it was seen before, else None."""
        return self._table.setdefault(hash(name) & _WORD, number)

    def put(self, name: str, number: int) -> None:
        """Replace the number of an id."""
        self._table.set(hash(name) & _WORD, number)

    def __contains__(self, name: str) -> bool:
        return self._table.get(hash(name) & _WORD) is not None
