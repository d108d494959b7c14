"""A method's name to its implementation: entries are data, and only what is asked for by name is imported."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from clipkit.errors import ClipkitError, UsageError

_NEAR: Final = 0.65  # of difflib's ratio: tpi is near tip, and tensorrt is not near safetensors


@dataclass(frozen=True, slots=True)
class Entry:
    """A method. target: `module:attribute`. summary: one line. distribution: who brought it; "" if clipkit did."""

    name: str
    target: str
    summary: str
    distribution: str = ""


class Registry:
    """The methods of one kind: clipkit's own, and those that other packages give in the entry points `clipkit.KIND`.

    kind: plural, as in `clipkit methods KIND`. Own entries win over others' of the same name.
    described: what an entry stands for has a `describe()`, which says more of it as JSON.
    hints: what to say to who asks for a name that is none, but something else.
    """

    def __init__(
        self, kind: str, *entries: Entry, described: bool = False, hints: Mapping[str, str] | None = None
    ) -> None:
        self.kind = kind
        self.described = described
        self._hints = hints or {}
        self._own = {entry.name: entry for entry in entries}

    def __iter__(self) -> Iterator[Entry]:
        """All entries; nothing is imported."""
        return iter({**self._others(), **self._own}.values())

    @property
    def own(self) -> tuple[str, ...]:
        """The names of clipkit's own entries, as they are listed: what a help text says without a look at packages."""
        return tuple(self._own)

    def names(self) -> list[str]:
        """The names of all entries, sorted."""
        return sorted(entry.name for entry in self)

    def entry(self, name: str) -> Entry:
        """The entry of a name; nothing is imported. Raises UsageError with the names that are close to it."""
        entry = self._own.get(name) or self._others().get(name)
        if entry is None:
            raise self._unknown(name)
        return entry

    def describe(self, name: str) -> dict[str, Any]:
        """What the method says of itself, as JSON; why not, as `error`, if it cannot be loaded. Raises UsageError."""
        if not self.described:
            return {}
        try:
            described: dict[str, Any] = self.get(name).describe()
        except UsageError:
            raise
        except ClipkitError as error:
            return {"error": error.message}
        return described

    def working(self) -> list[Any]:
        """What all names stand for, but for those of other packages that cannot be loaded."""
        found = []
        for entry in self:
            try:
                found.append(self.get(entry.name))
            except ClipkitError:
                continue
        return found

    def get(self, name: str) -> Any:
        """Import what a name stands for. Raises UsageError for an unknown name, with those that are close to it."""
        entry = self.entry(name)
        module, _, attribute = entry.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except Exception as error:
            if not entry.distribution:
                raise
            raise ClipkitError(
                f"{name} comes from {entry.distribution}, which cannot be loaded: {type(error).__name__}: {error}",
                f"upgrade or remove {entry.distribution}",
            ) from error

    def _others(self) -> dict[str, Entry]:
        if os.environ.get("CLIPKIT_PLUGINS") == "":
            return {}
        from importlib.metadata import entry_points

        found: dict[str, Entry] = {}
        for point in sorted(entry_points(group=f"clipkit.{self.kind}"), key=lambda point: point.name):
            distribution = point.dist.name if point.dist else "an unknown package"
            found.setdefault(point.name, Entry(point.name, point.value, f"From {distribution}.", distribution))
        return found

    def _unknown(self, name: str) -> UsageError:
        from difflib import get_close_matches

        names = self.names()
        plain = {_plain(known): known for known in names}
        meant = [_plain(name)] if _plain(name) in plain else get_close_matches(_plain(name), plain, cutoff=_NEAR)
        begun = (
            f"did you mean {' or '.join(plain[one] for one in meant)}? " if meant else f"there are {', '.join(names)}; "
        )
        return UsageError(
            f"there is no {name!r} among the {self.kind}",
            self._hints.get(name.lower()) or f"{begun}see: clipkit methods {self.kind}",
        )


def _plain(name: str) -> str:
    """What two spellings of one name share: `torch.export`, `TorchExport` and `torch-export`."""
    return "".join(letter for letter in name.lower() if letter.isalnum())
