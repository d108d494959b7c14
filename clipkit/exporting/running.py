"""An export from beginning to end: written beside its place, measured, and put there only if it is true."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any

from clipkit.errors import FULL, ClipkitError, UsageError, is_full
from clipkit.exporting.base import Job, Target, Wish
from clipkit.exporting.folder import REPORT, write_manifest, write_script
from clipkit.exporting.samples import Samples, carried
from clipkit.exporting.source import Source, scratch_folder
from clipkit.models import hub_folder
from clipkit.stream.signals import stopping


@dataclass(frozen=True, kw_only=True)
class Export:
    """model: as `--model` has it; None takes the adapter's. target: its name in EXPORTERS. out: a new folder.

    min_cosine, min_agreement: what the user asks for; None takes the target's own.
    samples, calibration: read before anything heavy. tell: a line for whoever waits; notify: one for everybody.
    isolate: measure in processes of their own; without, load times and memory say nothing.
    """

    model: str | None
    target: str
    wish: Wish
    out: str
    samples: Callable[[], Samples] = carried
    calibration: Callable[[], Samples] | None = None
    min_cosine: float | None = None
    min_agreement: float | None = None
    tell: Callable[[str], None] = lambda line: None
    notify: Callable[[str], None] = lambda line: None
    isolate: bool = True


class NotTrue(ClipkitError):
    """An export that is below its limits. report: what parity.json would have said."""

    def __init__(self, report: dict[str, Any], said: list[str]) -> None:
        hint = "nothing was written; the limits are --min-cosine and --min-agreement"
        super().__init__(f"the export is not true to its model: {'; '.join(said)}", hint)
        self.report = report


def export(asked: Export) -> dict[str, Any]:
    """Make an export; OUT appears when it is whole and true. Returns the report, as JSON.

    Raises UsageError for what cannot be asked, NotTrue for what is below its limits, ClipkitError for what cannot be
    made: then nothing is at OUT.
    """
    from clipkit.methods import EXPORTERS

    target: Target = EXPORTERS.get(asked.target)(asked.wish)
    hub_folder.check_target(asked.out)
    _check_adapter(asked, target)
    with stopping(asked.notify, asked.out), scratch_folder() as scratch:
        samples = asked.samples()
        calibration = asked.calibration() if asked.calibration else samples
        asked.tell("loading the model")
        source = Source(asked.model, asked.wish.adapter, Path(scratch), asked.wish.opset)
        with _beside(asked.out) as fresh:
            job = Job(source, asked.wish, fresh, Path(scratch), lambda: calibration, asked.tell)
            return _make(asked, target, samples, job)


@contextmanager
def _beside(out: str) -> Iterator[Path]:
    """A folder to make OUT in: it gets that name where all went well, and goes where not."""
    place = Path(os.path.realpath(out))
    try:
        fresh = Path(mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    except OSError as error:
        raise ClipkitError(f"{out} cannot be written: {str(error.strerror).lower()}") from None
    try:
        yield fresh
        _settle(fresh)
        os.rename(fresh, place)  # onto an empty folder too
    except Exception as error:  # each library that writes has words of its own for a full disk
        if is_full(error):
            hint = f"networks are made in {gettempdir()} (TMPDIR): there must be room there, too"
            raise ClipkitError(f"{os.path.normpath(out)} cannot be written: {FULL}", hint) from None
        if isinstance(error, OSError):
            hub_folder.check_target(out)  # somebody filled it meanwhile
        raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)  # gone by now where all went well


def _check_adapter(asked: Export, target: Target) -> None:
    """Raise UsageError for an adapter that works on features, where features are what is exported."""
    if asked.wish.adapter and not target.answers:
        from clipkit.methods.adapters import files

        saved = files.load(asked.wish.adapter)
        if not saved.adapter.changes_weights():
            said = f"{saved.adapter.name} doesn't change the model: it answers by its features"
            raise UsageError(said, "clipkit export --to head makes one network of both")


def _make(asked: Export, target: Target, samples: Samples, job: Job) -> dict[str, Any]:
    from clipkit.exporting import parity

    if target.runtime and "text" in asked.wish.towers and job.source.encoder.backend == "open_clip":
        job.source.require_tokenizer()  # making the networks takes a minute
    asked.tell(f"exporting the {' and the '.join(asked.wish.towers)} tower")
    written = target.write(job)
    if target.runtime:
        write_manifest(job, written, target.runtime)
        write_script(job)
    report = parity.report(job, target, asked, samples, written)
    if said := parity.failures(report):
        raise NotTrue(report, said)
    (job.folder / REPORT).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return report


def _settle(folder: Path) -> None:
    """Readable as other files are, and on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~hub_folder.umask())
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    folder.chmod(0o777 & ~hub_folder.umask())
