"""Parameters of a method: fields of a dataclass that say what they are, and take what a person writes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self, get_args, get_type_hints

import msgspec

from clipkit.errors import UsageError


def param(default: Any, said: str, *, untuned: Any = None, low: float | None = None) -> Any:
    """A parameter of a method. default: None where it is chosen on validation data, and then `untuned` without any.

    said: one line for people. low: the least value, where there is one.
    """
    return field(default=default, metadata={"said": said, "untuned": untuned, "low": low})


@dataclass(kw_only=True)
class Parametrised:
    """A method whose parameters are the fields that `param` makes. Subclasses are dataclasses (kw_only), too."""

    name: ClassVar[str] = ""

    @property
    def params(self) -> dict[str, Any]:
        """The parameters as they were given."""
        return {f.name: getattr(self, f.name) for f in fields(self) if "said" in f.metadata}

    @classmethod
    def described(cls) -> dict[str, Any]:
        """What there is to know of each parameter, as JSON."""
        return {f.name: _described(f.default, f.metadata) for f in fields(cls) if "said" in f.metadata}

    @classmethod
    def about(cls) -> str:
        """The method's docstring, its paragraphs apart by an empty line."""
        paragraphs = inspect.cleandoc(cls.__doc__ or "").split("\n\n")
        return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)

    @classmethod
    def from_settings(cls, settings: Mapping[str, str]) -> Self:
        """The method with parameters as a person wrote them: {"alpha": "2"}. Raises UsageError."""
        hints = get_type_hints(cls)
        known = [f.name for f in fields(cls) if "said" in f.metadata]
        values: dict[str, Any] = {}
        for name, text in settings.items():
            if name not in known:
                hint = f"it has {', '.join(known)}" if known else "it has none"
                raise UsageError(f"{cls.name} has no parameter {name!r}", hint)
            values[name] = _parsed(cls.name, name, text, hints[name])
        try:
            return cls(**cls.checked(values))
        except ValueError as error:
            raise UsageError(str(error)) from None

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values as JSON has them; those of parameters in the type that each has. Raises ValueError."""
        hints, made = get_type_hints(cls), dict(values)
        for f in fields(cls):
            if f.name not in values or "said" not in f.metadata:
                continue
            try:
                value = made[f.name] = msgspec.convert(values[f.name], hints[f.name])
            except msgspec.ValidationError as error:
                raise ValueError(f"{f.name} of {cls.name}: {error}") from None
            low = f.metadata["low"]
            if low is not None and value is not None and value < low:
                raise ValueError(f"{f.name} of {cls.name} is at least {low:g}, not {value:g}")
        return made


def parse_settings(texts: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` texts of `--set`, each name once. Raises UsageError."""
    given: dict[str, str] = {}
    for text in texts:
        name, equals, value = (piece.strip() for piece in text.partition("="))
        if not name or not equals:
            raise UsageError(f"--set takes NAME=VALUE, not {text!r}", "for example: --set alpha=2")
        if name in given:
            raise UsageError(f"--set names {name} twice")
        given[name] = value
    return given


def _described(default: Any, metadata: Mapping[str, Any]) -> dict[str, Any]:
    tuned = default is None and metadata["untuned"] is not None
    shown = {"default": default} if not tuned else {"default": "chosen on validation", "untuned": metadata["untuned"]}
    return {"said": metadata["said"], **shown}


def _parsed(method: str, name: str, text: str, hint: Any) -> Any:
    """A text as the type that a parameter has. Raises UsageError."""
    kinds = [kind for kind in (get_args(hint) or (hint,)) if kind is not type(None)]
    for kind in kinds:
        choices = get_args(kind) or (kind,) if not isinstance(kind, type) else (kind,)
        for choice in choices:
            if isinstance(choice, str):
                if text == choice:
                    return text
            elif choice is bool:
                if text in ("true", "false"):
                    return text == "true"
            elif choice in (int, float, str):
                try:
                    value = choice(text)
                except ValueError:
                    continue
                if choice is not float or math.isfinite(value):
                    return value
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    wanted = " or ".join(dict.fromkeys(names.get(kind, repr(kind)) for kind in kinds))
    raise UsageError(f"{name} of {method} is {wanted}, not {text!r}")
