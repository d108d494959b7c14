"""Where things are: the root, references relative to it, and the ids that follow from them."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from functools import lru_cache

from clipkit.references import is_data, is_remote, split_member

_PLAIN = re.compile(r"(?!/)(?!.*(?:^|/)\.{0,2}(?:/|$))[^\\:#]+", re.DOTALL)  # relative, with no empty, `.` or `..` step


def member_key(member: str) -> tuple[str, str] | None:
    """A tar member's sample key and lower-case extension, split at the first dot of the base name, as webdataset does.

    None for a name without an extension, a hidden file and webdataset's own `__meta__` names.
    """
    folder, slash, base = member.rpartition("/")
    stem, dot, extension = base.partition(".")
    if not stem or not dot or (stem.startswith("__") and stem.endswith("__")):
        return None
    key = folder + slash + stem
    while key.startswith("./"):
        key = key[2:]
    return key, extension.lower()


def shard_stem(path: str) -> str:
    """`data/train-0001.tar` to `train-0001`."""
    base = os.path.basename(path)
    return base.removesuffix(".tar")


def nfc(text: str) -> str:
    """Unicode normal form C, which makes names equal that look equal."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def _posix(path: str) -> str:
    return path if os.sep == "/" else path.replace(os.sep, "/")


class Places:
    """Paths as seen from one root: relative images are looked up under it, and ids are relative to it.

    root: `--root`, else CLIPKIT_ROOT, else the current folder; kept absolute.
    """

    def __init__(self, root: str | None = None) -> None:
        self.root = os.path.abspath(root or os.environ.get("CLIPKIT_ROOT") or os.curdir)
        self._prefix = self.root.rstrip(os.sep) + os.sep
        self._real = lru_cache(maxsize=1024)(os.path.realpath)

    def locate(self, reference: str) -> str:
        """The absolute path of a local reference (without its `#member`)."""
        return os.path.normpath(os.path.join(self.root, split_member(reference, self.root)[0]))

    def exists(self, reference: str) -> bool:
        """True if a local reference leads to a file; for a tar member, if its shard is there."""
        return os.path.lexists(os.path.join(self.root, split_member(reference, self.root)[0]))

    def relative(self, path: str) -> str | None:
        """An absolute path relative to the root, `/`-separated; None outside it.

        Compared as written first: a link inside the root keeps its name. Only then through links, so that a root
        reached by two names (a linked home folder) is one root.
        """
        path = os.path.normpath(path)
        if path.startswith(self._prefix):
            return _posix(path[len(self._prefix) :])
        folder, name = os.path.split(path)
        real = os.path.join(self._real(folder), name)
        prefix = self._real(self.root).rstrip(os.sep) + os.sep
        return _posix(real[len(prefix) :]) if real.startswith(prefix) else None

    def confined(self, path: str) -> str | None:
        """Where a path leads once links are followed; None if that is outside the root."""
        real = os.path.realpath(path)
        return real if real.startswith(self._real(self.root).rstrip(os.sep) + os.sep) else None

    def id_of_path(self, path: str) -> str:
        """The id of a file at an absolute path: relative to the root, or outside it without the leading `/`."""
        inside = self.relative(path)
        if inside is None:
            inside = _posix(os.path.splitdrive(os.path.normpath(path))[1]).lstrip("/")
        return nfc(inside)

    def id_of(self, reference: str) -> str:
        """The id that follows from an image reference alone, the same however the path was typed."""
        if _PLAIN.fullmatch(reference):
            return nfc(reference)
        if is_data(reference):
            return "data-" + hashlib.blake2b(reference.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        if is_remote(reference):
            return nfc(reference)
        shard, member = split_member(reference, self.root)
        if member is not None:
            split = member_key(member)
            return nfc(f"{shard_stem(shard)}/{split[0] if split else member}")
        return self.id_of_path(os.path.join(self.root, reference))

    def reference_to(self, path: str) -> str:
        """How a record names a file that was typed as `path` in the current folder, so that the root leads to it.

        Relative to the root inside it. Outside it a path stays what it was: absolute, or relative.
        """
        absolute = os.path.abspath(path)
        inside = self.relative(absolute)
        if inside is not None:
            return inside
        return absolute if os.path.isabs(path) else _posix(os.path.relpath(absolute, self.root))
