"""What a soup's verb says of what it made."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from clipkit.stream.record import encode_json
from clipkit.terminal import printable


def show(made: Mapping[str, Any], *, as_json: bool) -> None:
    """What `card.save` gave: a record on standard output, on a terminal lines."""
    if as_json or not sys.stdout.isatty():
        print(encode_json(made).decode())
        return
    print(printable(f"{made['out']}: the model {made['model']}"))
    for term in made["terms"]:
        print(printable(f"{term['coefficient']:+10.4f}  {term['model']}"))
