"""What the `image` of a record may be: a path, `shard.tar#member`, a `data:` URI or a URL; told apart in one place."""

from __future__ import annotations

import os
import re

from clipkit.terminal import printable

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # two letters at least: `C://` is a drive
_IN_TAR = ".tar#"


def is_data(reference: str) -> bool:
    """Whether a reference carries its bytes itself."""
    return reference[:5].lower() == "data:"


def is_remote(reference: str) -> bool:
    """Whether a reference is a URL: `https://`, `s3://`, ..."""
    return _SCHEME.match(reference) is not None


def is_local(reference: str) -> bool:
    """Whether a reference names a file, or a member of one."""
    return not (is_data(reference) or is_remote(reference))


def split_member(reference: str, root: str = "") -> tuple[str, str | None]:
    """`shard.tar#member` as (`shard.tar`, `member`); any other local reference as (reference, None).

    `#` separates only after `.tar`, and a file under `root` that has the whole as its name wins. Of several `.tar#`
    (a folder may be called `x.tar#y`) the first that follows a file counts; the very first where none does.
    """
    first = at = reference.find(_IN_TAR)
    if at < 0 or os.path.lexists(os.path.join(root, reference)):
        return reference, None
    if reference.find(_IN_TAR, at + 1) >= 0:
        while at >= 0 and not os.path.isfile(os.path.join(root, reference[: at + 4])):
            at = reference.find(_IN_TAR, at + 1)
    end = (first if at < 0 else at) + 4
    return reference[:end], reference[end + 1 :]


def shown(reference: str) -> str:
    """A reference for a message: short, on one line, without control characters."""
    return printable(reference if len(reference) <= 200 else f"{reference[:160]}...{reference[-30:]}")
