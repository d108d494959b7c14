"""JSON values as bytes that sort as the values do, so that records can be sorted on disk without being decoded."""

from __future__ import annotations

import struct
from typing import Any

from clipkit.stream.hashing import value_name

_DOUBLE = struct.Struct(">d")
_SIGN = 1 << 63
_ALL = (1 << 64) - 1
_ZERO = 1 << 31  # the length of an integer of no bytes; less for negative ones
_INVERTED = bytes(255 - byte for byte in range(256))
_LAST = b"\xff"  # no value: after all others in either direction


def sort_key(value: Any, descending: bool = False) -> bytes:
    """The key of a value: false, true, numbers, texts, lists, objects; then, in both directions, null.

    Numbers sort by their exact value, whole numbers of any size among them, texts by code point, lists item by item,
    objects by their JSON with sorted names. No key begins another, so keys of several values can be joined.
    """
    if value is None:
        return _LAST
    key = _key(value)
    return key.translate(_INVERTED) if descending else key


def _key(value: Any) -> bytes:
    """Its first byte is from 1 to 7, so that neither it nor its inversion can be `_LAST`."""
    if value is None:
        return b"\x07"
    if isinstance(value, bool):
        return b"\x02" if value else b"\x01"
    if isinstance(value, int | float):
        return b"\x03" + _number(value)
    if isinstance(value, str):
        return b"\x04" + _ended(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, list):
        return b"\x05" + b"".join(map(_key, value)) + b"\x00"
    return b"\x06" + _ended(value_name(value))


def _ended(data: bytes) -> bytes:
    """Bytes with an end that sorts before all that could follow."""
    return data.replace(b"\0", b"\0\xff") + b"\0\0"


def _number(value: int | float) -> bytes:
    """The nearest double, then the whole number that it is off by."""
    try:
        near = float(value) + 0.0  # -0.0 becomes 0.0
        rest = value - int(near) if isinstance(value, int) else 0
    except OverflowError:
        near, rest = float("inf" if value > 0 else "-inf"), int(value)
    bits = int.from_bytes(_DOUBLE.pack(near), "big")
    bits = bits ^ _ALL if bits & _SIGN else bits | _SIGN
    length = (rest.bit_length() + 7) // 8
    if rest < 0:
        return struct.pack(">QI", bits, _ZERO - length) + (rest + (1 << 8 * length) - 1).to_bytes(length, "big")
    return struct.pack(">QI", bits, _ZERO + length) + rest.to_bytes(length, "big")
