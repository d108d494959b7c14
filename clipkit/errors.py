"""What can go wrong, said to a person: one exception type, and the exit codes as an enum."""

from __future__ import annotations

import errno
from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """What a shell sees. Documented in README.md; tests hold it for every verb."""

    OK = 0
    FAILED = 1  # it failed, or the counts don't add up
    USAGE = 2  # the command line is wrong
    SOME_FAILED = 3  # finished, but some records failed (--lenient makes it 0)
    NOTHING_LEFT = 4  # with -e: no record was kept
    INTERRUPTED = 130  # Ctrl-C
    READER_CLOSED = 141  # the reader of our stdout went away
    TERMINATED = 143  # SIGTERM: stopped cleanly, resumable


class ClipkitError(Exception):
    """Something a user can act on: what was expected, what came, what to do.

    `where` is a place such as `photos.jsonl:17`; `hint` is what to do next. Shown as
    `clipkit VERB: WHERE: MESSAGE` with the hint on its own line; never as a traceback.
    """

    code = ExitCode.FAILED

    def __init__(self, message: str, hint: str | None = None, *, where: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class UsageError(ClipkitError):
    """The command line asks for something that cannot be."""

    code = ExitCode.USAGE


class RecordError(ClipkitError):
    """One record failed; the run goes on, or not, as `--on-error` says.

    `kind` is a short, stable, hyphenated name (`image-missing`, `bad-json`, `missing-field`): it becomes
    `error.type` in the record, and what `--rejects` can be grouped by.
    """

    def __init__(self, kind: str, message: str, hint: str | None = None, *, where: str | None = None) -> None:
        super().__init__(message, hint, where=where)
        self.kind = kind


class MissingPackage(ClipkitError):
    """A verb needs a package that is not installed (the slim install, or an extra)."""

    def __init__(self, package: str, purpose: str, install: str) -> None:
        super().__init__(f"{purpose} needs the package {package}, which is not installed", f"run: {install}")
        self.package = package


class Terminated(BaseException):
    """SIGTERM, raised in the main thread so that a run stops cleanly; exit code 143."""


def first_line(error: BaseException) -> str:
    """What another library's error says, in a line: the first that isn't empty, else its type."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


FULL: Final = "no space left on the disk, or none for this user"
_NUMBERS: Final = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
# Python's words, those of libraries in Rust, and what C++'s streams say of anything that they cannot write.
_SIGNS: Final = (
    *(sign for number in _NUMBERS for sign in (f"[Errno {number}]", f"os error {number}", f"code: {number}")),
    "iostream error",
)


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or one behind it, is that of a full disk; libraries say so in many ways."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NUMBERS:
            return True
        if any(sign in str(error) for sign in _SIGNS):
            return True
        error = error.__cause__ or error.__context__
    return False
