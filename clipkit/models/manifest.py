"""What the clipkit.json of an exported model may say: folders come from others, and what is built on it trusts it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

_ABSENT: Final = object()
_LARGE: Final = 1 << 20  # no width, side, context or vocabulary is larger
_OPTIONAL: Final = (
    "identity.extra",
    "preprocess.resize_mode",
    "preprocess.interpolation",
    "preprocess.fill",
    "preprocess.resize",
    "pixels",
    "backbone_dim",
    "few_shot_space",
    "towers",
    "runtime",
    "bytes",
)


def fault(manifest: Mapping[str, Any]) -> str:
    """The first thing in a manifest that cannot be, in a few words; "" where there is none."""
    about = manifest["tokenizer"]
    rules = _RULES if about is None else _RULES | _TOKENIZER
    for path, (expected, holds) in rules.items():
        value: Any = manifest
        for key in path.split("."):
            value = value.get(key, _ABSENT) if isinstance(value, Mapping) else _ABSENT
        if value is _ABSENT and path in _OPTIONAL:
            continue
        if value is _ABSENT or not holds(value):
            return f"{path} is {'missing' if value is _ABSENT else f'not {expected}'}"
    if about is not None and about["file"] not in manifest["files"]:
        return "tokenizer.file is not among its files"
    if about is None and "text" in manifest.get("towers", ("image", "text")):
        return "there is a text tower, and no tokenizer"
    return ""


Rule = tuple[str, Callable[[Any], bool]]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e30 and math.isfinite(value)


def _whole(low: int = 1, high: int = _LARGE) -> Rule:
    return f"a whole number from {low} to {high}", lambda value: type(value) is int and low <= value <= high


def _of(kind: type, said: str) -> Rule:
    return said, lambda value: isinstance(value, kind)


def _one_of(*allowed: str) -> Rule:
    return f"one of {', '.join(allowed)}", lambda value: isinstance(value, str) and value in allowed


def _list_of(count: int, said: str, holds: Callable[[Any], bool]) -> Rule:
    return said, lambda value: isinstance(value, list) and len(value) == count and all(map(holds, value))


def _or_null(rule: Rule) -> Rule:
    return f"{rule[0]}, or null", lambda value: value is None or rule[1](value)


_NUMBER: Final[Rule] = ("a finite number", _is_number)
_TEXT: Final = _of(str, "a text")
_RULES: Final[dict[str, Rule]] = {
    "name": _TEXT,
    "identity.weights": _TEXT,
    "identity.activation": _TEXT,
    "identity.dim": _whole(),
    "identity.extra": _of(dict, "an object"),
    "preprocess.size": _list_of(2, "two whole numbers", _whole()[1]),
    "preprocess.mean": _list_of(3, "three numbers", _is_number),
    "preprocess.std": _list_of(3, "three numbers above 0", lambda value: _is_number(value) and value > 0),
    "preprocess.resize_mode": _one_of("shortest", "squash", "longest"),
    "preprocess.interpolation": _one_of("bicubic", "bilinear"),
    "preprocess.fill": _whole(0, 255),
    "preprocess.resize": _or_null(_whole()),
    "pixels": _one_of("normalised", "raw"),
    "logit_scale": _NUMBER,
    "logit_bias": _or_null(_NUMBER),
    "context_length": _whole(),
    "backbone_dim": _or_null(_whole()),
    "few_shot_space": _one_of("joint", "backbone"),
    "towers": (
        "image, text or both",
        lambda value: isinstance(value, list) and value in (["image"], ["text"], ["image", "text"]),
    ),
    "runtime": _TEXT,
    "precision": _TEXT,
    "row_independent": _of(bool, "true or false"),
    "files": (
        "an object of texts",
        lambda value: isinstance(value, dict) and all(isinstance(digest, str) for digest in value.values()),
    ),
    "bytes": (
        "an object of whole numbers",
        lambda value: isinstance(value, dict) and all(type(size) is int for size in value.values()),
    ),
}
_TOKENIZER: Final[dict[str, Rule]] = {
    "tokenizer.file": _TEXT,
    "tokenizer.clean": _one_of("lower", "whitespace", "canonicalize"),
    "tokenizer.pad": _whole(0),
}
NEEDED: Final = frozenset({"tokenizer", *(path.partition(".")[0] for path in _RULES if path not in _OPTIONAL)})
"""Names that every manifest has at its top."""
