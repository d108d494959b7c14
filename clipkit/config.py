"""The four defaults a user can set, and where each comes from.

First wins: the flag, the environment (CLIPKIT_MODEL, CLIPKIT_DEVICE, CLIPKIT_ROOT, CLIPKIT_CACHE), ./clipkit.toml,
the user's own config file, what is built in. Files are read only when neither flag nor environment says it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from clipkit.errors import UsageError

PROJECT_FILE = "clipkit.toml"
NAMES = ("model", "device", "root", "cache")


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and who said so: `--model`, `CLIPKIT_MODEL`, a file's path, or `built in`."""

    value: str
    origin: str

    @property
    def chosen(self) -> bool:
        """Somebody asked for it."""
        return self.origin != BUILT_IN


BUILT_IN = "built in"


def setting(name: str, flag: str | None = None) -> Setting:
    """One of NAMES. `flag` is what the command line says. Raises UsageError where a config file is wrong."""
    if flag is not None:
        return Setting(flag, f"--{name}")
    variable = f"CLIPKIT_{name.upper()}"
    if value := os.environ.get(variable):
        return Setting(value, variable)
    for path in (Path(PROJECT_FILE), user_file()):
        if (found := _read(path).get(name)) is not None:
            return Setting(str(Path(found).expanduser()) if name in ("root", "cache") else found, str(path))
    return Setting(_built_in(name), BUILT_IN)


def _built_in(name: str) -> str:
    return {"model": "lite", "device": "auto", "root": ".", "cache": str(_folder("cache"))}[name]


def user_file() -> Path:
    """The user's config file, whether or not it is there."""
    return _folder("config") / "config.toml"


def _folder(kind: str) -> Path:
    """Where this platform keeps a program's `config` or `cache`."""
    if base := os.environ.get(f"XDG_{kind.upper()}_HOME"):
        return Path(base) / "clipkit"
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / {"config": "Application Support", "cache": "Caches"}[kind] / "clipkit"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "clipkit" / kind
    return home / {"config": ".config", "cache": ".cache"}[kind] / "clipkit"


def _read(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from None
    import tomllib

    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"not TOML: {error}", where=str(path)) from None
    for name, value in values.items():
        if name not in NAMES:
            raise UsageError(f"no setting is called {name!r}", f"there are: {', '.join(NAMES)}", where=str(path))
        if not isinstance(value, str):
            raise UsageError(f"{name} is not a string", f'write it as {name} = "..."', where=str(path))
    return values
