"""Other people's exporters print where they please: here their words go, so that stdout stays the records'."""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from tempfile import TemporaryFile


@contextmanager
def hushed() -> Iterator[None]:
    """Without what is printed to standard output, by Python or below it, and without warnings and log lines.

    torch's exporter prints its progress to stdout (torch 2.14), converters in C++ write to the descriptor itself.
    The whole process is meant: nothing else may print meanwhile.
    """
    before = logging.root.manager.disable
    sys.stdout.flush()
    _flush_below()
    saved = os.dup(1)
    with TemporaryFile() as aside, redirect_stdout(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            os.dup2(aside.fileno(), 1)
            yield
        finally:
            _flush_below()
            os.dup2(saved, 1)
            os.close(saved)
            logging.disable(before)


def _flush_below() -> None:
    """What C has buffered goes where its stdout is now, and not where that is when the process ends."""
    with suppress(AttributeError, OSError, TypeError):  # a platform without a libc to be had in this way
        ctypes.CDLL(None).fflush(None)
