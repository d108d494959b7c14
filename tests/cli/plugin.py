"""A real distribution, as pip leaves it, in a folder of its own."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest


def install(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    distribution: str,
    modules: dict[str, str],
    entry_points: str | None = None,
) -> Path:
    """Put a distribution with these modules (name: source) on the path, each a verb, and let plugins be found."""
    site = folder / f"site-{distribution}"
    for name, text in modules.items():
        path = site.joinpath(*f"{distribution.replace('-', '_')}_{name}".split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", encoding="utf-8")
    points = "".join(f"{name} = {distribution.replace('-', '_')}_{name}\n" for name in modules)
    (info / "entry_points.txt").write_text(entry_points or f"[clipkit.commands]\n{points}", encoding="utf-8")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.delenv("CLIPKIT_PLUGINS", raising=False)
    for name in modules:
        monkeypatch.delitem(sys.modules, f"{distribution.replace('-', '_')}_{name}", raising=False)
    importlib.invalidate_caches()
    return site
