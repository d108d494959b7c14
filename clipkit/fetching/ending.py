"""Whether an image file has its end, by its structure: a cheap test for what was cut off on its way."""

from __future__ import annotations

_SCAN, _END = 0xDA, b"\xff\xd9"
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


def has_end(data: bytes, format: str) -> bool:
    """False for a JPEG, PNG or WebP that is certainly cut; True for all others. What follows an end is not minded."""
    if format == "JPEG":
        scan = _first_scan(data)
        return scan < 0 or data.find(_END, scan) >= 0
    if format == "PNG":
        return data.rfind(b"IEND") >= 0
    if format == "WEBP":
        return len(data) >= 8 + int.from_bytes(data[4:8], "little")
    return True


def _first_scan(data: bytes) -> int:
    """Where the picture's own scan starts, past segments that may hold a small JPEG of their own; -1 if unclear."""
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return -1
        marker = data[at + 1]
        if marker == _SCAN:
            return at
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return at  # cut before its scan
