"""An export from beginning to end: written beside its place, measured, and put there only if it is true."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from clipkit.errors import ClipkitError
from clipkit.exporting import parity
from clipkit.exporting.base import Job, Limits, Target, Wish
from clipkit.exporting.folder import REPORT, write_manifest, write_script
from clipkit.exporting.samples import Samples
from clipkit.exporting.source import Source, scratch_folder
from clipkit.models import hub_folder


@dataclass(frozen=True, kw_only=True)
class Export:
    """model: as `--model` has it; None takes the adapter's. target: its name in EXPORTERS. out: a new folder.

    limits: what the user asks for; None takes the target's own.
    samples, calibration: made when they are needed. tell: a line for whoever waits.
    """

    model: str | None
    target: str
    wish: Wish
    out: str
    samples: Callable[[], Samples]
    calibration: Callable[[], Samples] | None = None
    min_cosine: float | None = None
    min_agreement: float | None = None
    tell: Callable[[str], None] = lambda line: None


def export(asked: Export) -> dict[str, Any]:
    """Make an export; OUT appears when it is whole and true. Returns the report, as JSON.

    Raises UsageError for what cannot be asked, ClipkitError for what cannot be made or isn't true: then nothing is at
    OUT.
    """
    from clipkit.methods import EXPORTERS

    target: Target = EXPORTERS.get(asked.target)(asked.wish)
    hub_folder.check_target(asked.out)
    place = Path(os.path.realpath(asked.out))
    fresh = Path(mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        with scratch_folder() as scratch:
            report = _make(asked, target, fresh, Path(scratch))
        _settle(fresh)
        os.rename(fresh, place)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    return report


def _make(asked: Export, target: Target, fresh: Path, scratch: Path) -> dict[str, Any]:
    source = Source(asked.model, asked.wish.adapter, scratch, asked.wish.opset)
    job = Job(source, asked.wish, fresh, scratch, asked.calibration or asked.samples, asked.tell)
    written = target.write(job)
    if target.runtime:
        write_manifest(job, written, target.runtime)
        write_script(job)
    limits = Limits(
        target.limits.cosine if asked.min_cosine is None else asked.min_cosine,
        target.limits.agreement if asked.min_agreement is None else asked.min_agreement,
    )
    report = parity.report(job, asked, written)
    (fresh / REPORT).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if failed := parity.failures(report, limits):
        raise ClipkitError(f"the export is not true to its source: {failed}", "nothing was written; see --min-cosine")
    return report


def _settle(folder: Path) -> None:
    """Readable as other files are, and on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~hub_folder.umask())
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    folder.chmod(0o777 & ~hub_folder.umask())
