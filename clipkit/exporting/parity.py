"""How true an export is to its source, and what it costs beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clipkit.exporting.base import Job, Limits, Written

if TYPE_CHECKING:
    from clipkit.exporting.running import Export


def report(job: Job, asked: Export, written: Written) -> dict[str, Any]:
    """Measure source and export on the samples, each in a process of its own. Returns JSON for parity.json."""
    raise NotImplementedError


def failures(report: dict[str, Any], limits: Limits) -> str:
    """What is below its limit, in words; "" if nothing is."""
    raise NotImplementedError
