"""From a reference to bytes: paths, members of tars, `data:` URIs and, where allowed, the network."""

from __future__ import annotations

import base64
import binascii
import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote_to_bytes

from clipkit.errors import ClipkitError, RecordError
from clipkit.images.limits import Limits
from clipkit.images.shards import Shards
from clipkit.references import is_data, is_local, is_remote, shown, split_member

_NOT_THE_RECORDS_FAULT = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_ABSENT = {errno.ENOENT, errno.ENOTDIR}
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a fifo"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Opener:
    """Opens the image references of records. Thread-safe; one opener serves a whole run.

    root: where relative paths start; the current folder if None. confine: refuse whatever lies outside the root
    once symbolic links are followed. remote: allow http and https (see `clipkit.images.remote` for its guards).

    A reference is a path, `shard.tar#member` (`#` separates only after `.tar`, and an existing file of that very
    name wins), a `data:` URI, or a URL.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        *,
        confine: bool = False,
        remote: bool = False,
        limits: Limits = Limits(),
    ) -> None:
        self.limits = limits
        self._root = os.path.abspath(root or ".")
        self._inside = os.path.join(os.path.realpath(self._root), "") if confine else None
        self._remote = remote
        self._shards = Shards()

    @classmethod
    def of(cls, runtime: Mapping[str, Any]) -> Self:
        """As the runtime of a stage says: root, confine and remote, each of which may be missing."""
        return cls(runtime.get("root"), confine=runtime.get("confine", False), remote=runtime.get("remote", False))

    def read(self, ref: str) -> bytes:
        """The encoded image.

        Raises RecordError: `image-missing`, `image-not-a-file`, `image-empty`, `image-too-large`,
        `image-unreadable`, `image-outside-root`, `image-remote`, and for remote files also `image-format`.
        """
        if is_data(ref):
            data = _read_data_uri(ref, self.limits)
        elif is_remote(ref):
            data = self._read_remote(ref)
        else:
            data = self._read_local(ref)
        if not data:
            raise RecordError("image-empty", f"{shown(ref)} has 0 bytes")
        if len(data) > self.limits.max_bytes:
            raise _too_large(ref, self.limits)
        return data

    def stamp(self, ref: str) -> str:
        """What changes when the bytes behind a reference may have changed, without reading them.

        `size:mtime_ns` of the file; for a tar's member that of the tar and the member's `offset:size`; "remote" for a
        URL that may be opened (so that one refused before is tried then). "" for `data:` URIs and whatever cannot be
        found or may not be opened. Never raises RecordError.
        """
        if not is_local(ref):
            return "remote" if self._remote and not is_data(ref) else ""
        try:
            path, member = self._split(ref)
            status = os.stat(self._allowed(path, ref))
            stamp = f"{status.st_size}:{status.st_mtime_ns}"
            if member is None:
                return stamp
            offset, size = self._shards.locate(path, member, ref)
            return f"{stamp}:{offset}:{size}"
        except (RecordError, OSError, ValueError):
            return ""

    def path(self, ref: str) -> Path | None:
        """The file that a reference names, absolute, whether it exists or not; None if it is no file of its own.

        Raises RecordError `image-outside-root` (and, with `confine`, `image-missing` for what cannot be a name).
        """
        if not is_local(ref):
            return None
        path, member = self._split(ref)
        return Path(self._allowed(path, ref)) if member is None else None

    def _split(self, ref: str) -> tuple[str, str | None]:
        """Absolute path and, inside a tar, the member's name."""
        name, member = split_member(ref, self._root)
        return os.path.join(self._root, name), member

    def _allowed(self, path: str, ref: str) -> str:
        """The path to open: with `confine` free of symbolic links, and inside the root."""
        if self._inside is None:
            return path
        try:
            real = os.path.realpath(path)
        except ValueError:
            raise _no_name(ref) from None
        if not os.path.join(real, "").startswith(self._inside):
            raise RecordError("image-outside-root", f"{shown(ref)} lies outside the root", "--confine refuses that")
        return real

    def _read_local(self, ref: str) -> bytes:
        try:
            path, member = self._split(ref)
            path = self._allowed(path, ref)
            _check_regular(os.stat(path), ref)
            if member is not None:
                return self._shards.read(path, member, self.limits.max_bytes, ref)
            return self._read_file(path, ref)
        except OSError as error:
            raise _explain(error, ref) from None
        except ValueError:  # a NUL, or half of a surrogate pair
            raise _no_name(ref) from None

    def _read_file(self, path: str, ref: str) -> bytes:
        # What was a file a moment ago may be a fifo by now: O_NONBLOCK opens it without waiting for a writer.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY), "rb", 0) as file:
            status = os.fstat(file.fileno())
            _check_regular(status, ref)
            if status.st_size > self.limits.max_bytes:
                raise _too_large(ref, self.limits)
            parts = []
            left = self.limits.max_bytes + 1
            while left and (part := file.read(min(left, max(status.st_size + 1, 1 << 16)))):
                parts.append(part)
                left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_remote(self, ref: str) -> bytes:
        if ref[:5].lower() == "file:":
            raise RecordError("image-missing", f"{shown(ref)}: file:// URLs are not opened", "give the path itself")
        if not ref.lower().startswith(("http://", "https://")):
            hint = "copy it here first, for example with aws s3 cp or rclone"
            raise RecordError("image-remote", f"{shown(ref)}: only http:// and https:// are opened", hint)
        if not self._remote:
            hint = "run clipkit fetch first, or allow it with --remote"
            raise RecordError("image-remote", f"{shown(ref)} is not on this machine", hint)
        from clipkit.images.remote import download

        return download(ref, self.limits)


def _check_regular(status: os.stat_result, ref: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        what = next((name for test, name in _KINDS if test(status.st_mode)), "no regular file")
        raise RecordError("image-not-a-file", f"{shown(ref)} is {what}")


def _too_large(ref: str, limits: Limits) -> RecordError:
    return RecordError("image-too-large", f"{shown(ref)} is over the limit of {limits.max_bytes:,} bytes")


def _no_name(ref: str) -> RecordError:
    return RecordError("image-missing", f"{shown(ref)} cannot be the name of a file")


def _explain(error: OSError, ref: str) -> ClipkitError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _NOT_THE_RECORDS_FAULT:
        return ClipkitError(f"cannot open {shown(ref)}: {reason}", "this machine is short of something: see ulimit -a")
    if error.errno in _ABSENT:
        return RecordError("image-missing", f"no file {shown(ref)}", "is --root right?")
    return RecordError("image-unreadable", f"cannot read {shown(ref)}: {reason}")


def _read_data_uri(ref: str, limits: Limits) -> bytes:
    """The bytes of an RFC 2397 URI, base64 or percent-encoded."""
    head, comma, body = ref.partition(",")
    if not comma:
        raise RecordError("image-unreadable", f"{shown(ref)}: a data: URI without a comma")
    if len(body) > 4 * limits.max_bytes:  # no encoding makes four characters of less than one byte
        raise _too_large(ref, limits)
    data = unquote_to_bytes(body)
    if not head.lower().endswith(";base64"):
        return data
    data = b"".join(data.split()).rstrip(b"=")
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except binascii.Error as error:
        raise RecordError("image-unreadable", f"{shown(ref)}: not base64: {error}") from None
