"""Folders that appear whole: made beside their place, and put there by a rename."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def replace(fresh: Path, folder: Path) -> None:
    """Put FRESH where FOLDER is, once the disk holds all of it: not even a power cut leaves half a folder there.

    A kill between the two renames is mended by `recover`.
    """
    for path in fresh.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
    if folder.exists():
        old = aside(folder)
        os.rename(folder, old)
        os.rename(fresh, folder)
        shutil.rmtree(old)
    else:
        os.rename(fresh, folder)


def recover(folder: Path) -> None:
    """Undo what a kill in `replace` left."""
    old = aside(folder)
    if old.exists() and not folder.exists():
        os.rename(old, folder)
    elif old.exists():
        shutil.rmtree(old)


def aside(folder: Path) -> Path:
    """Where what FOLDER held is while it is replaced."""
    return folder.with_name(folder.name + ".old")
