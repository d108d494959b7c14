"""Placeholders in a prompt: `{text}`. Any other brace is itself, and what is put in is never looked at again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_NAME: Final = r"[A-Za-z_][\w.-]*"
_PLACEHOLDER: Final = re.compile(r"\{(\{" + _NAME + r"\})\}|\{(" + _NAME + r")\}")


def names(prompt: str) -> list[str]:
    """The placeholders of a prompt, each once, in their order. `{{text}}` is none: it says `{text}`."""
    return list(dict.fromkeys(match[2] for match in _PLACEHOLDER.finditer(prompt) if match[2]))


def fill(prompt: str, values: Mapping[str, str]) -> str:
    """The prompt with its placeholders replaced. Raises KeyError for one without a value."""
    return _PLACEHOLDER.sub(lambda match: values[match[2]] if match[2] else match[1], prompt)
