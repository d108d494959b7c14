"""Captions by a language model behind a server that sees texts alone: rewritings, and fusions of several captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clipkit.methods.captioners.served import Served


@dataclass(kw_only=True)
class Rewrite(Served):
    """Sends captions to an OpenAI-compatible server, with the text of a recipe (`laclip` if none is named).

    The server decides what is written: the same seed gives the same captions only as far as it keeps to that; the
    journal keeps what it answered.
    """

    name: ClassVar[str] = "rewrite"
    method = "rewrite"
    default_recipe = "laclip"
    needs_image = False
    needs_text = True
