"""Pairs that can be told apart: a shape of a colour, and words for both."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (30, 30, 230), "yellow": (230, 220, 20)}
_INSIDE = (6, 6, 26, 26)
SHAPES: dict[str, Callable[[ImageDraw.ImageDraw, Any], None]] = {
    "circle": lambda draw, fill: draw.ellipse(_INSIDE, fill),
    "square": lambda draw, fill: draw.rectangle(_INSIDE, fill),
    "triangle": lambda draw, fill: draw.polygon([(16, 4), (28, 28), (4, 28)], fill),
    "bar": lambda draw, fill: draw.rectangle((2, 12, 30, 20), fill),
    "post": lambda draw, fill: draw.rectangle((12, 2, 20, 30), fill),
    "ring": lambda draw, fill: draw.ellipse(_INSIDE, outline=fill, width=4),
}


def paint(folder: Path) -> list[dict[str, Any]]:
    """24 pictures of 32 pixels in FOLDER, and their records."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for colour, rgb in COLOURS.items():
        for shape, drawn in SHAPES.items():
            picture = Image.new("RGB", (32, 32), (128, 128, 128))
            drawn(ImageDraw.Draw(picture), rgb)
            name = f"{colour}-{shape}.png"
            picture.save(folder / name)
            records.append({"id": name[:-4], "image": name, "text": f"a {colour} {shape}"})
    return records


def write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
