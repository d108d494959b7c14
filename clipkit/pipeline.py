"""From a verb's option groups to a run: the one call that a streaming verb makes."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from clipkit import config
from clipkit.errors import ExitCode, UsageError
from clipkit.terminal import printable

if TYPE_CHECKING:
    from clipkit.options import ImageOptions, InputOptions, ModelOptions, StreamOptions
    from clipkit.stream.record import Record
    from clipkit.stream.sink import Sink
    from clipkit.stream.sources import BadLine, Source
    from clipkit.stream.sources.by_split import SourcesBySplit
    from clipkit.stream.stage import Stage
    from clipkit.stream.table import Column

CACHE_BYTES = 4 << 30  # the feature cache's bound


def stream(
    stage: Stage,
    io: StreamOptions,
    *,
    columns: Sequence[Column] = (),
    sink: Sink | None = None,
    open_output: Callable[[str], Sink] | None = None,
    order: Callable[[Record], bytes] | None = None,
    records: Iterable[Record | BadLine] | None = None,
    writes: Mapping[str, str | None] | None = None,
    reads: Mapping[str, Sequence[str]] | None = None,
    **more: Any,
) -> ExitCode:
    """Run a stage as the flags of `io` say. `more` are RunOptions that only some verbs offer (mark).

    open_output: as `runner.run` takes it. order: records come sorted by this key (`spool.Ordered`).
    records: what is read instead of the sources that `io` names. writes: the verb's own flags that name a file.
    reads: its flags that name what is read beside the sources, as the command line has it: -o would destroy that too.
    Raises UsageError for `--shard` where everything must be read first, and for a file that is read and written.
    """
    from clipkit.stream.runner import RunOptions, run
    from clipkit.stream.spool import Ordered
    from clipkit.stream.stage import policy
    from clipkit.stream.whole import WholeStage

    names = ("out", "on_error", "rejects", "resume", "restart", "retry_failed", "lenient", "exit_status", "report")
    options = RunOptions(
        **{name: getattr(io, name) for name in names}, workers=io.workers or 0, quiet=io.quiet, json=io.json, **more
    )
    if io.shard and (order or (isinstance(stage, WholeStage) and not stage.mergeable)):
        raise UsageError("--shard: a part cannot decide for the whole", "leave it out: this reads everything first")
    written = {"--rejects": io.rejects, "--report": io.report, **(writes or {})}
    _apart(reads or {}, {"-o": io.out, **written})
    if records is None:
        records = opened = source(io, stage.verb, confine=bool(stage.runtime.get("confine")))
        _spare(opened.paths, written)
    if order:
        records = Ordered(records, order, bad_first=policy(stage, io.on_error) == "fail")
    return run(stage, records, options, columns=columns, sink=sink, open_output=open_output)


def one_of_several(io: StreamOptions) -> tuple[StreamOptions, bool]:
    """The flags of this process, and whether it is the one that writes files and speaks: of those that torchrun starts
    to do one thing together, the first is. Raises UsageError where they would share standard input."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and (not io.sources or "-" in io.sources):
        raise UsageError("several processes cannot read one standard input", "name a file")
    if int(os.environ.get("RANK", "0")) == 0:
        return io, True
    silent: dict[str, Any] = dict.fromkeys(("out", "rejects", "report"))
    return replace(io, **silent, resume=False, restart=False, quiet=True), False


def _spare(read: Iterable[str], written: Mapping[str, str | None]) -> None:
    """Raise UsageError for a file that would be written over what is read. (-o may: it is renamed when all is read.)"""
    inputs = {os.path.realpath(path) for path in read}
    for flag, path in written.items():
        if path and os.path.realpath(path) in inputs:
            raise UsageError(f"{flag} {path}: that is an input", "give each its own")


def _apart(read: Mapping[str, Sequence[str]], written: Mapping[str, str | None]) -> None:
    """Raise UsageError for a file that would be written over one of those that flags name as read."""
    inputs = {os.path.realpath(path): flag for flag, words in read.items() for path in _named(words)}
    for flag, path in written.items():
        if path and os.path.isfile(path) and (other := inputs.get(os.path.realpath(path))):
            raise UsageError(f"{flag} and {other} name one file: {path}", "give each its own")


def _named(words: Iterable[str]) -> Iterator[str]:
    """The words as paths, and what else they stand for where they are patterns or `@lists` of records."""
    from clipkit.stream.sources.inputs import expand

    for word in words:
        path = word.removeprefix("@")
        yield path
        if path == word or os.path.isfile(path):  # a list that comes through a pipe can be read only once
            with contextlib.suppress(UsageError):  # no records: a verb's own kind of file, which it will judge
                yield from (item.path for item in expand((word,)))


def check_writes(io: StreamOptions, writes: Mapping[str, str | None]) -> None:
    """Raise UsageError for a file of a verb's own flags that cannot be made, or that another flag names.

    writes: flag -> path. Before anything is opened or loaded.
    """
    from clipkit.stream.sink import check_writable

    taken = {os.path.realpath(path): flag for flag, path in _shared_files(io) if path and path != "-"}
    for flag, path in writes.items():
        if path == "-":
            raise UsageError(f"{flag} - : only records go to standard output", "name a file")
        if path:
            check_writable(path, flag)
            other = taken.setdefault(os.path.realpath(path), flag)
            if other != flag:
                raise UsageError(f"{other} and {flag} name one file: {path}", "give each its own")


def _shared_files(io: StreamOptions) -> Iterable[tuple[str, str | None]]:
    return (("-o", io.out), ("--rejects", io.rejects), ("--report", io.report))


def source(
    io: InputOptions, verb: str, *, confine: bool = False, label_folders: bool = False, split_folders: bool = False
) -> Source:
    """The input that the flags of `io` name; what it notices is said on stderr, unless quiet.

    confine: no caption beside an image is read from outside the root. label_folders, split_folders: as
    `SourceOptions` has them.
    """
    from clipkit.stream.sources import SourceOptions, open_source

    return open_source(
        SourceOptions(
            paths=tuple(io.sources),
            mapping=io.map or {},
            root=root(io),
            null=io.null,
            label_from=io.label_from,
            dup_ids=io.dup_ids,
            shard=io.shard,
            limit=io.limit,
            confine=confine,
            label_folders=label_folders,
            split_folders=split_folders,
        ),
        note=teller(io, verb),
    )


def teller(io: InputOptions, verb: str) -> Callable[[str], None]:
    """Says on stderr what a person should hear at once, unless quiet."""
    from clipkit.stream.progress import say

    return lambda message: None if io.quiet else say(printable(f"clipkit {verb}: {message}"))


def sources_by_split(
    io: InputOptions,
    verb: str,
    more: Mapping[str, Sequence[str]],
    *,
    confine: bool = False,
    store: str | None = None,
    field: str = "split",
    first: Iterable[Record | BadLine] | None = None,
) -> SourcesBySplit:
    """Labelled images: the input that `io` names, and more sources, which are read as it is.

    more: `split` -> the sources whose records get it. store: the feature store whose records are read instead of what
    `io` names; first: other records that are. field: another that they get; then names of folders are no labels and
    splits. Raises UsageError where standard input is named twice.
    """
    from clipkit.stream.sources.by_split import SourcesBySplit

    if [*(io.sources or ["-"] * (store is None)), *itertools.chain(*more.values())].count("-") > 1:
        raise UsageError("standard input (-) is named twice", "it can be read only once")
    folders = field == "split"
    if first is None and store is None:
        first = source(io, verb, confine=confine, label_folders=folders, split_folders=folders)
    elif store is not None:
        first = store_records(store)
    assert first is not None
    parts: list[tuple[str | None, Iterable[Record | BadLine]]] = [(None, first)]
    for split, paths in more.items():
        if paths:
            named = replace(io, sources=list(paths), limit=None)
            parts.append((split, source(named, verb, confine=confine, label_folders=folders)))
    return SourcesBySplit(parts, field)


def reads_store(io: InputOptions, features: str | None) -> bool:
    """Whether `--features` was given and no SOURCE: then the store's own records are read.

    Raises UsageError for `--limit` and `--shard` beside that: they are about a SOURCE.
    """
    if not features or io.sources:
        return False
    if io.limit is not None or io.shard:
        hint = "where there is none the whole store is read"
        raise UsageError("there is no SOURCE: --limit and --shard are about one", hint)
    return True


def store_records(folder: str) -> Iterator[Record]:
    """The records of a feature store, in its order."""
    from clipkit.features.store import Store
    from clipkit.stream.record import Record

    return (Record.parse(line, folder) for line in Store(folder).records())


def root(io: InputOptions) -> str | None:
    """Where relative images are looked up; None is the current folder, or a manifest's own where that rule holds."""
    chosen = config.setting("root", io.root)
    return chosen.value if chosen.chosen else None


def model_config(model: ModelOptions, images: ImageOptions, features: str | None = None) -> dict[str, Any]:
    """The part of a stage's config that decides what its features are. With a store, its model is the default."""
    name = model.name
    if features and config.setting("model", model.model).origin == config.BUILT_IN:
        from clipkit.features.store import Store

        name = Store(features).model.name
    return {
        "model": name,
        "device": model.device_name,
        "precision": model.precision or "auto",
        "batch_size": model.batch_size,
        "exact_decode": images.exact_decode,
        "features": features,
    }


def runtime(io: StreamOptions, images: ImageOptions, model: ModelOptions | None = None) -> dict[str, Any]:
    """Where things are found: changes no output.

    Raises UsageError for a root that is no folder (not mounted, say): every single image would be missing.
    """
    chosen = config.setting("root", io.root)
    if not os.path.isdir(chosen.value):
        raise UsageError(f"{chosen.origin}: there is no folder {chosen.value}", "images are looked up there")
    caching = model is not None and not model.no_cache
    return {
        "root": root(io),
        "confine": images.confine,
        "remote": images.remote,
        "cache": config.setting("cache").value if caching else None,
        "cache_bytes": CACHE_BYTES,
        "quiet": io.quiet,
    }
