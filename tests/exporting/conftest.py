"""Tiny models, their graphs and their exports, each made once a run."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from PIL import Image

from clipkit.exporting.base import Job, Target, Tower, Wish, Written
from clipkit.exporting.folder import write_manifest, write_script
from clipkit.exporting.samples import Samples
from clipkit.exporting.source import Source
from clipkit.methods import EXPORTERS
from tests.models.conftest import _offline as _offline
from tests.models.conftest import checkpoint as checkpoint


class Maker(Protocol):
    def __call__(
        self, target: str, source: Source | str, folder: Path, *, samples: Samples | None = None, **wish: Any
    ) -> Written: ...


def pictures(count: int = 4, seed: int = 0) -> list[Image.Image]:
    """Smooth random pictures of several sizes: a few blots of colour, enlarged."""
    random = np.random.default_rng(seed)
    blots = [Image.fromarray(random.integers(0, 256, (6, 5, 3), dtype=np.uint8)) for _ in range(count)]
    return [blot.resize((90 + 17 * i, 140 - 11 * i), Image.Resampling.BICUBIC) for i, blot in enumerate(blots)]


@pytest.fixture(scope="session")
def samples() -> Samples:
    return Samples(pictures(8), [f"a photo of {name}" for name in ("a cat", "a dog", "rain", "two boats")], "blots")


class Shared(Source):
    """A source whose graphs all processes of a run share: torch takes seconds for each, and makes the same bytes."""

    def __init__(self, model: str, scratch: Path, shared: Path) -> None:
        super().__init__(model, None, scratch)
        self._shared = shared

    def _make(self, tower: Tower) -> Path:
        self._shared.mkdir(exist_ok=True)
        held = self._shared / f"{tower}.onnx"
        with open(self._shared / f"{tower}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not held.exists():
                super()._make(tower).rename(held)
        return held


@pytest.fixture(scope="session")
def source(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Source]:
    """A tiny architecture as an export's source; its graphs are made when they are first asked for."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made: dict[str, Source] = {}

    def of(arch: str) -> Source:
        if arch not in made:
            scratch = tmp_path_factory.mktemp(f"graphs-{arch}")
            made[arch] = Shared(f"{arch}:{checkpoint(arch)}", scratch, shared / f"shared-{arch}")
        return made[arch]

    return of


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory, samples: Samples) -> Maker:
    """Run a target into FOLDER, with manifest and script where it has a runtime, but without the report."""
    given = samples

    def run(target: str, source: Source | str, folder: Path, *, samples: Samples | None = None, **wish: Any) -> Written:
        asked = Wish(**wish)
        maker: Target = EXPORTERS.get(target)(asked)
        scratch = tmp_path_factory.mktemp("scratch")
        if isinstance(source, str):
            source = Source(source, asked.adapter, scratch, asked.opset)
        folder.mkdir(exist_ok=True)
        job = Job(source, asked, folder, scratch, lambda: samples or given, lambda line: None)
        written = maker.write(job)
        if maker.runtime:
            write_manifest(job, written, maker.runtime)
            write_script(job)
        return written

    return run


class Builder(Protocol):
    def __call__(self, target: str, arch: str, **wish: Any) -> tuple[Path, Written]: ...


@pytest.fixture(scope="session")
def built(source: Callable[[str], Source], make: Maker, tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """A tiny architecture as any target, made once a run. Copy the folder before you change anything in it."""
    made: dict[tuple[str, str, str], tuple[Path, Written]] = {}

    def of(target: str, arch: str, **wish: Any) -> tuple[Path, Written]:
        key = (target, arch, repr(sorted(wish.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp("built") / arch
            made[key] = folder, make(target, source(arch), folder, **wish)
        return made[key]

    return of


@pytest.fixture(scope="session")
def exported(built: Builder) -> Callable[[str], Path]:
    """The f32 ONNX folder of a tiny architecture. Copy it before you change anything in it."""
    return lambda arch: built("onnx", arch)[0]
