"""The source of a run: its inputs one after the other, with ids, shards and limits applied."""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from clipkit.errors import UsageError
from clipkit.stream.record import Record
from clipkit.stream.sources.blocks import Blocks, Chosen
from clipkit.stream.sources.context import Input, Item, Note, Reading, SourceOptions
from clipkit.stream.sources.inputs import expand
from clipkit.stream.sources.naming import Naming
from clipkit.stream.sources.places import Places
from clipkit.stream.sources.readers import count_items, read
from clipkit.stream.sources.rewriting import beside, by_split, labelled

_MANIFESTS = frozenset(("jsonl", "lines", "csv", "tsv", "parquet"))
_LINES = frozenset(("jsonl", "lines"))
_PICTURES = frozenset(("folder", "image"))
_COUNTED = frozenset(("jsonl", "lines", "csv", "tsv", "json", "tar"))


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr)


def open_source(options: SourceOptions, *, stdin: BinaryIO | None = None, note: Note = _to_stderr) -> Source:
    """The records of all inputs that `options` names, in order; reading starts with iteration.

    stdin: what `-` reads (default: sys.stdin.buffer). note: called with one-line notices for people.
    Raises UsageError for a path that isn't there and for options that cannot be.
    """
    if options.dup_ids not in ("error", "suffix"):
        raise UsageError(f"--dup-ids is error or suffix, not {options.dup_ids!r}")
    if options.label_from not in (None, "folder"):
        raise UsageError(f"--label-from is folder, not {options.label_from!r}")
    if options.shard is not None and not 1 <= options.shard[0] <= options.shard[1]:
        raise UsageError(f"--shard is I/N with 1 <= I <= N, not {options.shard[0]}/{options.shard[1]}")
    if options.limit is not None and options.limit < 0:
        raise UsageError(f"--limit is a number of records, not {options.limit}")
    if len(set(options.mapping.values())) < len(options.mapping):
        raise UsageError("--map names one column twice", "a column can get one name only")
    return Source(options, expand(options.paths), stdin, note)


class Source:
    """Iterate once: a Record for each record, a BadLine for what is none.

    A ClipkitError raised while iterating (a torn archive, an unreadable file) comes after all that could be read.
    root: the absolute folder under which relative images are looked up.
    bytes_total: the size of the inputs on disk, None where not known; see `bytes_read`.
    """

    def __init__(self, options: SourceOptions, inputs: list[Input], stdin: BinaryIO | None, note: Note) -> None:
        self._options = options
        self._stdin = stdin
        self._note = functools.cache(note)  # what is so of many files is said once
        self._places = Places(options.root)
        self._by_hash = False
        self._inputs = self._share(inputs)
        self._naming = Naming(self._inputs, self._places, suffix=options.dup_ids == "suffix")
        self._reading: Reading | None = None
        self._bytes_before = 0
        self.root = self._places.root
        self.bytes_total = _bytes_of(self._inputs)

    def _share(self, inputs: list[Input]) -> list[Input]:
        """This shard's inputs: whole files where there are at least N, else all of them, and records go by their id.

        Suffixes for equal ids depend on all that came before, so with them every shard reads everything.
        """
        if self._options.shard is None:
            return inputs
        index, count = self._options.shard
        files = all(item.kind != "folder" for item in inputs) and len(inputs) >= count
        self._by_hash = not files or self._options.dup_ids == "suffix"
        return inputs if self._by_hash else inputs[index - 1 :: count]

    @property
    def total(self) -> int | None:
        """How many items there will be, where the inputs say so without being read; else None."""
        known = None if self._by_hash else count_items(self._inputs)
        return known if known is None or self._options.limit is None else min(known, self._options.limit)

    @property
    def paths(self) -> list[str]:
        """What is read, as typed; `-` is stdin."""
        return [item.path for item in self._inputs]

    @property
    def bytes_read(self) -> int:
        """How far the reading is, in bytes of `bytes_total`."""
        return self._bytes_before + (self._reading.bytes_read if self._reading else 0)

    def __iter__(self) -> Iterator[Item]:
        left = self._options.limit
        if left is None:
            yield from self._items()
            return
        for item in self._items() if left else ():
            yield item
            left -= 1
            if not left:
                return

    def _items(self) -> Iterator[Item]:
        for index, item in enumerate(self._inputs):
            reading = self._reading = Reading(item, self._options, self._places, self._note, self._stdin)
            yield from self._given(reading, index)
            self._bytes_before += reading.bytes_read
            self._reading = None

    def _given(self, reading: Reading, index: int) -> Iterator[Item]:
        """The items of one input."""
        items = read(reading)
        if reading.input.kind in _MANIFESTS and reading.input.path != "-":
            items = beside(items, reading)
        if self._options.label_from:
            items = labelled(items, self._places)
        elif self._options.label_folders and reading.input.kind in _PICTURES:
            items = labelled(items, self._places, only_missing=True)
        if self._options.split_folders and reading.input.kind == "folder":
            items = by_split(items, reading)
        return self._settled(items, reading, index)

    @property
    def plain(self) -> bool:
        """Whether records are as they are read, each of them, with the ids they have: then `selected` may be used."""
        options = self._options
        changed = options.mapping or options.label_from or options.label_folders or options.dup_ids == "suffix"
        return not (changed or self._by_hash or options.limit is not None)

    def selected(self, row: type[Any], test: Callable[[Any], int], steps: Sequence[str]) -> Iterator[Item | Chosen]:
        """As iterating, but lines that are records with a row are decided at once, a block of them together.

        row: what `Columns.row` made. test: of a row: HELD, or the number of the step that drops it; if it raises, the
        record is given instead.
        """
        for index, item in enumerate(self._inputs):
            reading = self._reading = Reading(item, self._options, self._places, self._note, self._stdin)
            if item.kind in _LINES:
                yield from read(reading, Blocks(row, test, steps, self._naming, index).read)
            else:
                yield from self._given(reading, index)
            self._bytes_before += reading.bytes_read
            self._reading = None

    def _settled(self, items: Iterator[Item], reading: Reading, index: int) -> Iterator[Item]:
        """Items with their ids settled, of this shard only."""
        settle = self._naming.settle
        for item in items:
            name = None
            if isinstance(item, Record):
                name, item = settle(item, reading, index)
            if not self._by_hash or self._is_mine(name, item.digest):
                yield item

    def _is_mine(self, name: str | None, digest: bytes) -> bool:
        assert self._options.shard is not None
        index, count = self._options.shard
        if name is not None:
            digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest[:8], "big") % count == index - 1


def _bytes_of(inputs: list[Input]) -> int | None:
    """The size of inputs that are read from front to end; None if one isn't a plain file so read."""
    if any(item.kind not in _COUNTED or not os.path.isfile(item.path) for item in inputs):
        return None
    return sum(os.path.getsize(item.path) for item in inputs)
