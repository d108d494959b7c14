"""Perceptual hashes that differ in a few of 64 bits: all such pairs, exactly, without comparing all with all."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from clipkit.errors import UsageError
from clipkit.methods.dedupers.base import Deduper, Links, Look, Pairs, equal

if TYPE_CHECKING:
    from PIL import Image

    from clipkit.features.vectors import Vectors

DEFAULT_BITS: Final = 6
MOST_BITS: Final = 16  # beyond that unrelated pictures meet
_AT_ONCE: Final = 1 << 18  # candidates compared at once: some 20 MiB


class _Perceptual(Deduper):
    """Images whose hashes differ in at most `hamming` of 64 bits; 6 without that option."""

    width: ClassVar[int] = 8
    opens: ClassVar[bool] = True

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.bits: int = options.get("hamming", DEFAULT_BITS)
        if not 0 <= self.bits <= MOST_BITS:
            raise UsageError(f"--hamming takes 0 to {MOST_BITS} bits, not {self.bits}", "6 of 64 is a good start")

    @property
    def limit(self) -> int:
        return self.bits

    def key(self, look: Look) -> bytes | None:
        known = look.made(self.name, 16)
        if known is not None:
            return known
        return None if look.record.get("image") is None else self._hash(look.picture).to_bytes(8)

    def _hash(self, picture: Image.Image) -> int:
        raise NotImplementedError

    def links(self, keys: np.ndarray, present: np.ndarray, vectors: Vectors | None) -> Links:
        classes, representatives = equal(keys, present)
        values = np.ascontiguousarray(keys[representatives]).view(">u8").ravel().astype(np.uint64)
        return NearCodes(classes, values, self.bits)


class PHash(_Perceptual):
    """Images whose pHashes (the picture's low frequencies) differ in at most `hamming` of 64 bits."""

    name: ClassVar[str] = "phash"

    def _hash(self, picture: Image.Image) -> int:
        from clipkit.images.hashing import phash

        return phash(picture)


class DHash(_Perceptual):
    """Images whose dHashes (where it grows brighter to the right) differ in at most `hamming` of 64 bits."""

    name: ClassVar[str] = "dhash"

    def _hash(self, picture: Image.Image) -> int:
        from clipkit.images.hashing import dhash

        return dhash(picture)


class NearCodes(Links):
    """Classes of 64-bit codes, linked within some bits. values: uint64 [classes], all different."""

    def __init__(self, classes: np.ndarray, values: np.ndarray, bits: int) -> None:
        super().__init__(classes, len(values))
        self._values, self._bits = values, bits

    def near(self, some: np.ndarray, others: np.ndarray) -> Pairs:
        chosen = np.flatnonzero(some | others)
        for a, b in near_codes(self._values[chosen], self._bits):
            one, other = chosen[a], chosen[b]
            asked = (some[one] & others[other]) | (others[one] & some[other])
            if asked.any():
                yield one[asked], other[asked]


@dataclass(frozen=True, slots=True)
class _Band:
    """`width` bits of a code from bit `start` on, in which two codes may differ by `radius` bits; -1: not looked at."""

    start: int
    width: int
    radius: int

    def of(self, codes: np.ndarray) -> np.ndarray:
        return (codes >> np.uint64(self.start)) & np.uint64((1 << self.width) - 1)

    def masks(self) -> Iterator[int]:
        """All differences within the radius."""
        for flips in range(self.radius + 1):
            for bits in combinations(range(self.width), flips):
                yield sum(1 << bit for bit in bits)


def near_codes(codes: np.ndarray, bits: int) -> Pairs:
    """All pairs of different codes at most `bits` bits apart, each once: positions int64 [m] and int64 [m], in pieces.

    codes: uint64 [n], all different. Multi-index hashing (Norouzi et al., "Fast Exact Search in Hamming Space with
    Multi-Index Hashing", 2014): the 64 bits are cut into bands; two codes within `bits` are within a share of them in
    one band at least, so that only codes that nearly agree in a band are compared. Memory: 16 bytes a code, and a
    table of at most 2^22 places.
    """
    bands = _bands(len(codes), bits)
    for number, band in enumerate(bands):
        if band.radius < 0:
            continue
        places = _Places(band, codes)
        for mask in band.masks():
            for a, b in places.meet(places.parts ^ mask):
                beyond = a < b
                a, b = a[beyond], b[beyond]
                new = _new(codes[a] ^ codes[b], bits, bands[:number])
                if new.any():
                    yield a[new], b[new]


class CodeIndex:
    """Codes that others are compared with: as `near_codes`, between two sets.

    codes: uint64 [n]. Memory: 16 bytes a code and band, and at most 2^22 places a band.
    """

    def __init__(self, codes: np.ndarray, bits: int) -> None:
        self._codes, self._bits = codes, bits
        self._bands = _bands(len(codes), bits)
        self._places = [_Places(band, codes) for band in self._bands if band.radius >= 0]
        self._masks = [np.fromiter(places.band.masks(), np.int64) for places in self._places]

    def near(self, asked: np.ndarray) -> Pairs:
        """All pairs at most `bits` bits apart, each once: positions in `asked` (uint64 [m]) and in the codes."""
        for number, (places, masks) in enumerate(zip(self._places, self._masks, strict=True)):
            wanted = places.band.of(asked).astype(np.int64)[:, None] ^ masks
            for at, b in places.meet(wanted.ravel()):
                a = at // len(masks)
                new = _new(asked[a] ^ self._codes[b], self._bits, self._bands[:number])
                if new.any():
                    yield a[new], b[new]


def _new(differences: np.ndarray, bits: int, earlier: list[_Band]) -> np.ndarray:
    """Which pairs are near, and were met in none of the earlier bands: each pair once."""
    near = popcount(differences) <= bits
    some = differences[near]
    first = np.ones(len(some), bool)
    for band in earlier:
        first &= popcount(band.of(some)) > band.radius
    near[near] = first
    return near


class _Places:
    """Codes by what they are in one band."""

    def __init__(self, band: _Band, codes: np.ndarray) -> None:
        self.band = band
        self.parts = band.of(codes).astype(np.int64)
        self._order = np.argsort(self.parts, kind="stable")
        self._starts = np.zeros((1 << band.width) + 1, np.int64)
        np.cumsum(np.bincount(self.parts, minlength=1 << band.width), out=self._starts[1:])

    def meet(self, wanted: np.ndarray) -> Pairs:
        """Pairs (a, b): code b lies in the place that `wanted[a]` names. int64 [m] and int64 [m], in pieces."""
        counts = self._starts[wanted + 1] - self._starts[wanted]
        ends = np.cumsum(counts)
        begin = 0
        while begin < len(wanted):
            done = int(ends[begin - 1]) if begin else 0
            end = max(int(np.searchsorted(ends, done + _AT_ONCE, side="right")), begin + 1)
            few = counts[begin:end]
            a = np.repeat(np.arange(begin, end), few)
            within = np.arange(len(a)) - np.repeat(ends[begin:end] - few - done, few)
            yield a, self._order[np.repeat(self._starts[wanted[begin:end]], few) + within]
            begin = end


def _bands(n: int, bits: int) -> list[_Band]:
    """The cut of 64 bits that costs least for n codes: places looked up, and codes that random ones meet there."""
    return min((_cut(parts, bits) for parts in range(3, 17)), key=lambda bands: _cost(bands, n))


def _cut(parts: int, bits: int) -> list[_Band]:
    """64 bits in `parts` bands with radii that miss no pair.

    Were all of the first (bits mod parts) + 1 bands over radius r = bits div parts, and the others over r - 1, the sum
    would be over `bits`.
    """
    radius, rest = divmod(bits, parts)
    edges = [round(64 * i / parts) for i in range(parts + 1)]
    return [_Band(edges[i], edges[i + 1] - edges[i], radius if i <= rest else radius - 1) for i in range(parts)]


def _cost(bands: list[_Band], n: int) -> float:
    cost = 0.0
    for band in bands:
        places = sum(math.comb(band.width, flips) for flips in range(band.radius + 1))
        met = n * n / 2 ** (band.width + 1)  # a place
        cost += places * (n + 20_000 + 8 * met) + 2.0**band.width
    return cost


_M1, _M2, _M4 = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)
_SUM, _ONE, _TWO, _FOUR, _TOP = (np.uint64(v) for v in (0x0101010101010101, 1, 2, 4, 56))


def popcount(values: np.ndarray) -> np.ndarray:
    """The number of bits set in each uint64 (numpy has it from 2.0 on)."""
    values = values - ((values >> _ONE) & _M1)
    values = (values & _M2) + ((values >> _TWO) & _M2)
    values = (values + (values >> _FOUR)) & _M4
    return (values * _SUM) >> _TOP
