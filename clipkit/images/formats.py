"""What a file is, by its first bytes: a name and a suffix are only claims."""

from __future__ import annotations

READ_HERE = "JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, and HEIC with clipkit[heif]"

# What `sniff` gives -> the suffix of a file that we name.
SUFFIXES = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tif",
    "AVIF": "avif",
    "HEIF": "heic",
}

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
_AVIF = frozenset({b"avif", b"avis"})
_HEIC = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_CONTAINER = frozenset({b"mif1", b"msf1"})  # HEIF around any codec: the compatible brands tell which

_OTHERS = (
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"8BPS", "Photoshop"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\1\0", "an icon (ICO)"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"PK\3\4", "a zip archive"),
    (b"\x1f\x8b", "gzip"),
)


def sniff(data: bytes) -> str | None:
    """The format of an encoded image as Pillow names it ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF").

    None for anything that is not read here. 64 bytes are enough, save for HEIF and AVIF with many brands.
    """
    if data[:3] == b"\xff\xd8\xff":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data[:2] == b"BM":
        return "BMP"
    if data[:4] in _TIFF:
        return "TIFF"
    return _sniff_isobmff(data)


def _sniff_isobmff(data: bytes) -> str | None:
    if data[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(data[:4], "big"), 1024)
    major = data[8:12]
    brands = {major} | {data[at : at + 4] for at in range(16, end, 4)}
    if major not in _AVIF | _HEIC | _CONTAINER:
        return None
    if major in _HEIC or not brands & _AVIF:
        return "HEIF"
    return "AVIF"


def describe(data: bytes) -> str:
    """What a file that is not read here looks like, for a message."""
    for magic, name in _OTHERS:
        if data.startswith(magic):
            return name
    head = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in head:
        return "SVG"
    if head.startswith((b"<!doctype html", b"<html", b"<head")):
        return "HTML"
    if head.startswith(b"<?xml"):
        return "XML"
    if head and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return "text"
    return "an unknown format"
