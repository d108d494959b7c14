"""How a run ends: what went wrong in words, the exit code, and the command that goes on."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TextIO

from clipkit.errors import ClipkitError, ExitCode, Terminated


def readable(error: BaseException) -> BaseException:
    """A disk that is full, a file that cannot be written: said as such."""
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        said = str(error.strerror or error).lower()
        return ClipkitError(f"{error.filename}: {said}" if error.filename else said)
    return error


_STOPPED = {
    KeyboardInterrupt: ExitCode.INTERRUPTED,
    Terminated: ExitCode.TERMINATED,
    BrokenPipeError: ExitCode.READER_CLOSED,
}


def exit_code(error: BaseException) -> ExitCode:
    """The exit code of a run that an error ended."""
    code: ExitCode = getattr(error, "code", None) or _STOPPED.get(type(error), ExitCode.FAILED)
    return code


def seen(stream: TextIO | None) -> bool:
    """Whether a person looks at a stream (which may be closed)."""
    return stream is not None and not stream.closed and stream.isatty()


def resume_command(argv: Sequence[str]) -> str:
    """The command line that goes on with an interrupted run."""
    if len(argv) < 2:
        return "the same, and resume=True"
    words = [word for word in argv[1:] if word not in ("--restart", "--resume")]
    # before the first option: a verb may be of two words, and after `--` all are sources
    at = next((number for number, word in enumerate(words) if number and word.startswith("-")), len(words))
    return shlex.join(["clipkit", *words[:at], "--resume", *words[at:]])
