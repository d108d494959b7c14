"""Records to measure with, as an image-text crawl has them: about 330 bytes a line."""

from __future__ import annotations

import json
import random
from pathlib import Path

WORDS = ("a", "photo", "of", "the", "small", "red", "dog", "and", "two", "friends", "on", "grass", "near", "Zürich")


def write_lines(path: Path, count: int) -> Path:
    """COUNT records, the same ones each time."""
    chosen = random.Random(0)
    with open(path, "w", encoding="utf-8") as file:
        for number in range(count):
            record = {
                "id": f"{number:09}",
                "image": f"images/{number % 1000:03}/{number:09}.jpg",
                "text": " ".join(chosen.choices(WORDS, k=chosen.randint(4, 16))),
                "url": f"https://example.org/{chosen.getrandbits(64):016x}/picture.jpg",
                "width": chosen.randint(64, 4000),
                "height": chosen.randint(64, 4000),
                "scores": {"clip": round(chosen.gauss(0.28, 0.04), 6), "aesthetic": round(chosen.gauss(5.2, 0.8), 6)},
                "via": {"scores.clip": "clip/lite@0123456789ab"},
            }
            file.write(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n")
    return path
