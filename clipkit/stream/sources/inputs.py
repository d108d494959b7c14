"""What a user named as input: patterns and lists spelled out, and the kind of each path."""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Iterator

from clipkit.errors import UsageError
from clipkit.references import is_local, split_member
from clipkit.stream.sources.context import Input
from clipkit.stream.sources.folders import UNFINISHED, is_image_name, looks_like_image

_SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
    ".json-lines": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".tar": "tar",
}
_PACKED_TAR = (".tgz", ".tar.gz", ".tar.zst", ".tar.bz2", ".tar.xz", ".tbz2", ".txz")
# Named by a user, these are taken for images, so that the opener can say why they are refused.
_RAW = (".cr2", ".nef", ".dng", ".arw")
_OTHER_IMAGES = frozenset(
    (*_RAW, ".svg", ".svgz", ".ico", ".psd", ".jp2", ".jxl", ".ppm", ".pgm", ".tga", ".eps", ".pdf")
)
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST = 1_000_000  # paths that one pattern may spell out


def expand(paths: tuple[str, ...]) -> list[Input]:
    """The inputs a command line names, in its order. Raises UsageError for what isn't there or can't be read."""
    if not paths:
        return [Input("-", "lines")]
    found = [Input(path, kind_of(path)) for named in paths for path in _spell_out(named)]
    if sum(item.path == "-" for item in found) > 1:
        raise UsageError("stdin (-) is named twice", "it can be read only once")
    return found


def _spell_out(named: str) -> Iterator[str]:
    if named.startswith("@") and len(named) > 1:
        yield from _listed(named[1:])
    else:
        yield from _matches(named)


def _listed(path: str) -> Iterator[str]:
    """Paths of a list file: one a line, blank lines and `#` comments left out, patterns allowed."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except OSError as error:
        raise UsageError(f"the list {path!r} cannot be read: {error.strerror}", _close_matches(path)) from None
    except UnicodeDecodeError:
        raise UsageError(f"the list {path!r} is not UTF-8", "@FILE names a text file of paths, one a line") from None
    for number, line in enumerate(lines, 1):
        if not line or line.startswith("#"):
            continue
        try:
            yield from _matches(line)
        except UsageError as error:
            raise UsageError(error.message, error.hint, where=f"{path}:{number}") from None


def _matches(named: str) -> Iterator[str]:
    """The paths one name stands for: itself if there is such a file, else its braces and wildcards spelled out."""
    if named == "-" or os.path.lexists(named) or not is_local(named) or _is_member(named):
        yield named
        return
    import glob

    for pattern in _braces(named):
        if os.path.lexists(pattern):
            yield pattern
            continue
        paths = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else []
        if not paths:
            wanted = pattern if pattern == named else f"{pattern} (of {named})"
            raise UsageError(f"no such file or folder: {wanted}", _close_matches(pattern))
        yield from (path for path in paths if not path.endswith(UNFINISHED) or pattern.endswith(UNFINISHED))


def _is_member(named: str) -> bool:
    shard, member = split_member(named)
    return member is not None and os.path.isfile(shard)


def _braces(pattern: str) -> Iterator[str]:
    """`a-{00..02}.tar` and `{a,b}.tar` as a shell spells them out; other braces stay."""
    parts: list[list[str]] = []
    end, count = 0, 1
    for found in _BRACES.finditer(pattern):
        choices = _choices(found[1])
        if choices:
            parts += [[pattern[end : found.start()]], choices]
            end = found.end()
            count *= len(choices)
    if count > _MOST:
        raise UsageError(f"{pattern} stands for {count} paths", f"at most {_MOST}")
    parts.append([pattern[end:]])
    return map("".join, itertools.product(*parts))


def _choices(inner: str) -> list[str]:
    span = _RANGE.fullmatch(inner)
    if span is None:
        return inner.split(",") if "," in inner else []
    first, last = int(span[1]), int(span[2])
    if abs(last - first) >= _MOST:
        raise UsageError(f"{{{inner}}} stands for {abs(last - first) + 1} paths", f"at most {_MOST}")
    padded = any(number[0] == "0" and len(number) > 1 for number in span.groups())
    width = max(map(len, span.groups())) if padded else 0
    step = 1 if last >= first else -1
    return [str(number).zfill(width) for number in range(first, last + step, step)]


def _close_matches(path: str) -> str | None:
    folder, name = os.path.split(path.rstrip("/"))
    try:
        with os.scandir(folder or os.curdir) as entries:
            names = [entry.name for entry in itertools.islice(entries, 10_000)]
    except OSError:
        return f"there is no folder {folder!r}" if folder else None
    import difflib

    close = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(os.path.join(folder, name) for name in close)}?" if close else None


def kind_of(path: str) -> str:
    """How to read a path: by what it is, then by its suffix, then by its first bytes. UsageError if no way is known."""
    if path == "-":
        return "lines"
    if not os.path.lexists(path):
        return "reference"  # a URL or shard.tar#member: the opener of images judges it
    lower = path.lower()
    try:
        mode = os.stat(path).st_mode
    except OSError:
        mode = 0
    if stat.S_ISDIR(mode):
        return "folder"
    if is_image_name(path) or os.path.splitext(lower)[1] in _OTHER_IMAGES:
        return "image"
    if not mode:
        raise UsageError(f"{path} is a link to nothing")
    if lower.endswith(_PACKED_TAR):
        raise _packed(path)
    if lower.endswith(".part"):
        raise UsageError(f"{path} is an output that isn't finished", "finish that run first, with --resume")
    bare = lower.removesuffix(".gz").removesuffix(".zst")
    kind = _SUFFIXES.get(os.path.splitext(bare)[1])
    if kind in ("tar", "parquet") and not stat.S_ISREG(mode):
        raise UsageError(f"{path} is a {kind} but no regular file", "save it first: it is not read from front to end")
    if kind:
        return kind
    return _by_content(path) if stat.S_ISREG(mode) else "lines"


def _by_content(path: str) -> str:
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    kind = kind_of_bytes(head)
    if kind == "unknown":
        suffixes = "jsonl, csv, tsv, parquet, tar, COCO json, images and folders"
        raise UsageError(f"{path} is none of the kinds of input that clipkit reads", f"it reads {suffixes}")
    return kind


def kind_of_bytes(head: bytes) -> str:
    """The kind of input that starts with these (up to 512) bytes: `lines` for text, `unknown` for other binary data."""
    if looks_like_image(head):
        return "image"
    if head[257:262] == b"ustar":
        return "tar"
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        return "lines"
    if b"\0" in head.rstrip(b"\0") and not head.isascii():
        return "unknown"
    return "lines"


def _packed(path: str) -> UsageError:
    return UsageError(
        f"{path} is a compressed tar: a record refers to an image as SHARD.tar#MEMBER, which needs a plain one",
        "unpack it once: gunzip, zstd -d, bunzip2 or unxz (images gain nothing from compression)",
    )
