"""Tiny models, made once a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.models import tiny


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's library reads HF_HUB_OFFLINE when it is imported, which an earlier test may have done."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint of a tiny architecture, as .safetensors, made when first asked for."""
    folder = tmp_path_factory.mktemp("checkpoints")
    tiny.register(folder)

    def of(arch: str) -> Path:
        path = folder / arch / "model.safetensors"
        if not path.exists():
            path.parent.mkdir()
            tiny.save(tiny.make(arch), path)
        return path

    return of
