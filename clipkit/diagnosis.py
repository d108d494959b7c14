"""What `clipkit doctor` looks at: the defaults in force and their origin, what is installed, found, and whole."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipkit import __version__, config
from clipkit.errors import ClipkitError

LITE = Path(__file__).parent / "models" / "lite"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `value` is what was found, `note` what it means or where it comes from. ok: False asks for action."""

    section: str
    name: str
    value: str
    note: str = ""
    ok: bool = True


def findings() -> Iterator[Finding]:
    """Everything, cheapest first; the devices come last since they import torch, where it is installed."""
    for look in (_program, _defaults, _model, _packages, _cache, _lite, _devices):
        yield from look()


def _program() -> Iterator[Finding]:
    from clipkit.stream.engine import available_cores

    yield Finding("program", "clipkit", __version__, str(Path(__file__).parent))
    yield Finding("program", "python", platform.python_version(), sys.executable)
    yield Finding("program", "platform", platform.platform())
    yield Finding("program", "cores", str(available_cores()))
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        yield Finding("program", "memory", _bytes(memory))


def _defaults() -> Iterator[Finding]:
    for name in config.NAMES:
        try:
            found = config.setting(name)
        except ClipkitError as error:
            yield Finding("defaults", name, "not known", str(error), ok=False)
        else:
            yield Finding("defaults", name, found.value, found.origin)


def _model() -> Iterator[Finding]:
    """The default model, where another one than the carried was chosen: whether it is there, and what runs it."""
    from clipkit.models.describe import describe

    try:
        name = config.setting("model").value
    except ClipkitError:
        return  # said among the defaults
    if name == "lite":
        return
    try:
        said = describe(name)
    except ClipkitError as error:
        yield Finding("model", name, "cannot be used", str(error), ok=False)
        return
    where = "" if said.get("cached") else "to be downloaded"
    if "towers" in said:
        where = f"{said['precision']}, {' and '.join(said['towers'])}"
    yield Finding("model", str(said["id"]), str(said["backend"]), where)


def _packages() -> Iterator[Finding]:
    from importlib.metadata import PackageNotFoundError, requires, version

    for need in requires("clipkit") or []:
        name, extra = re.split(r"[<>=!~;\[ (]", need)[0], "extra ==" in need
        if "'test'" in need or '"test"' in need:
            continue
        try:
            yield Finding("packages", name, version(name))
        except PackageNotFoundError:
            yield Finding(
                "packages", name, "not installed", "only verbs that use it need it" if not extra else "optional"
            )


def _cache() -> Iterator[Finding]:
    try:
        folder = Path(config.setting("cache").value)
    except ClipkitError:
        return  # said among the defaults
    try:
        held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    except OSError as error:
        yield Finding("cache", str(folder), "cannot be read", error.strerror or "", ok=False)
    else:
        yield Finding("cache", str(folder), _bytes(held) if folder.exists() else "empty")


def _lite() -> Iterator[Finding]:
    """The carried model's files against the digests that its manifest holds."""
    try:
        manifest = json.loads((LITE / "lite.json").read_bytes())
        for name, digest in manifest["files"].items():
            whole = hashlib.sha256((LITE / name).read_bytes()).hexdigest() == digest
            yield Finding(
                "lite", name, "whole" if whole else "damaged", "" if whole else "install clipkit again", whole
            )
    except (OSError, ValueError, KeyError) as error:
        yield Finding("lite", "files", "missing or damaged", f"install clipkit again ({error})", ok=False)


def _devices() -> Iterator[Finding]:
    try:
        from clipkit.models.device import facts

        for fact in facts():
            yield Finding("devices", fact.name, fact.value, fact.advice)
    except ModuleNotFoundError:
        yield Finding("devices", "torch", "not installed", "lite and exported models run without it, on the CPU")


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
