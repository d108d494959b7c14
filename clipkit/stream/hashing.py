"""Random choices that are a function of a record and a seed: the same in any order, any part of the input, any process.

A record's ticket is the first 128 bits of blake2b over `PURPOSE 0 SEED 0 NAME`, in UTF-8, where 0 is one zero byte. Its
share is the first 53 of them as a number in [0, 1), exact in a double. The purpose keeps verbs apart: what `sample`
takes says nothing about where `split` puts it.
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Any

from clipkit.stream.record import Record, encode_json

_BELOW_ONE = 2.0**-53


def ticket(name: str | bytes, seed: int, purpose: str) -> bytes:
    """16 random bytes of a name; compared as bytes they put names in a random order."""
    if isinstance(name, str):
        name = name.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(b"%b\0%d\0%b" % (purpose.encode(), seed, name), digest_size=16).digest()


def share_of(drawn: bytes) -> float:
    """The share that a ticket stands for: uniform in [0, 1), a multiple of 2**-53, in the order of the tickets."""
    return (int.from_bytes(drawn[:8], "big") >> 11) * _BELOW_ONE


def share(name: str | bytes, seed: int, purpose: str) -> float:
    """A random number of a name: uniform in [0, 1), a multiple of 2**-53."""
    return share_of(ticket(name, seed, purpose))


def name_of(record: Record) -> str | bytes:
    """What a record's random choices hang on: its id; the digest of its line where it has none."""
    return record.id or record.digest


def value_name(value: Any) -> bytes:
    """A JSON value as bytes, equal for equal values: 1 and 1.0 are one, so are two spellings (NFC) of one text.

    For what groups records: a class, an album, a key to join by. A number and a text never have one name.
    """
    if isinstance(value, str):
        return encode_json(value if value.isascii() else unicodedata.normalize("NFC", value))
    if isinstance(value, float) and value.is_integer():
        return encode_json(int(value))
    if isinstance(value, list):
        return b"[%b]" % b",".join(value_name(inner) for inner in value)
    if isinstance(value, dict):
        pairs = sorted((value_name(name), value_name(inner)) for name, inner in value.items())
        return b"{%b}" % b",".join(name + b":" + inner for name, inner in pairs)
    return encode_json(value)
