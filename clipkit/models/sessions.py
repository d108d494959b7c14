"""onnxruntime, as both backends that stand on it use it."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clipkit.errors import ClipkitError, MissingPackage


def open_session(path: Path, threads: int) -> Any:
    """A network on the CPU, with `threads` cores for one operator. Raises ClipkitError where it cannot be loaded."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception class for each of its status codes, without a common base
        raise ClipkitError(f"onnxruntime cannot load {path}: {str(error).splitlines()[0]}") from None


@cache
def kernels() -> str:
    """Which kernels compute: another version of the library may round otherwise.

    Read from its file: importing it takes 0.1 s, which a run that finds everything in the cache need not spend.
    """
    spec = find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        raise MissingPackage("onnxruntime", "this model", "pip install onnxruntime")
    found = re.search(r'^__version__ = "([^"]+)"', Path(spec.origin).read_text(encoding="utf-8"), re.MULTILINE)
    return f"onnxruntime-{found[1] if found else 'unknown'}"


class Once:
    """A value made by the first caller; callers that come meanwhile wait for it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._value: Any = None

    def __call__(self) -> Any:
        if self._value is None:
            with self._lock:
                if self._value is None:
                    self._value = self._make()
        return self._value
