"""Sources: whatever a user names as input, read as records, one at a time."""

from __future__ import annotations

from clipkit.stream.sources.context import BadLine, SourceOptions
from clipkit.stream.sources.source import Source, open_source

__all__ = ["BadLine", "Source", "SourceOptions", "open_source"]
