"""Records that are the same when their keys are equal: bytes, pixels, addresses, captions."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import ClassVar
from urllib.parse import urlsplit

from clipkit.methods.dedupers.base import Deduper, Look, digest, text_field

_PORTS = {"http": 80, "https": 443, "ftp": 21}
_ESCAPE = re.compile("%([0-9a-fA-F]{2})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class Bytes(Deduper):
    """Images whose files are equal, byte for byte: by sha256, of which 128 bits are kept."""

    name: ClassVar[str] = "bytes"
    opens: ClassVar[bool] = True

    def key(self, look: Look) -> bytes | None:
        if look.record.get("image") is None and look.made("sha256", 64) is None:
            return None
        return (look.made("sha256", 64) or hashlib.sha256(look.data).digest())[: self.width]


class Pixels(Deduper):
    """Images that decode to equal pictures (upright, RGB): saved again without loss, or with other metadata."""

    name: ClassVar[str] = "pixels"
    opens: ClassVar[bool] = True

    def key(self, look: Look) -> bytes | None:
        known = look.made("pixel_sha256", 64)
        if known is None:
            if look.record.get("image") is None:
                return None
            from clipkit.images.hashing import pixel_digest

            known = bytes.fromhex(pixel_digest(look.picture))
        return known[: self.width]


class Url(Deduper):
    """Records of one address: the field `url`, else an `image` that is a URL. See `normalised_url`."""

    name: ClassVar[str] = "url"
    needs: ClassVar[str] = "url"

    def key(self, look: Look) -> bytes | None:
        url = text_field(look.record, "url")
        if url is None:
            image = look.record.get("image")
            url = image if isinstance(image, str) and re.match("(?i)https?://", image) else None
        if url is None:
            return None
        plain = normalised_url(url)
        return digest(plain) if plain else b""


class Text(Deduper):
    """Records of one caption, the field `text`. See `normalised_text`."""

    name: ClassVar[str] = "text"
    needs: ClassVar[str] = "text"

    def key(self, look: Look) -> bytes | None:
        text = text_field(look.record, "text")
        if text is None:
            return None
        plain = normalised_text(text)
        return digest(plain) if plain else b""


def normalised_text(text: str) -> str:
    """NFKC, without case (Unicode's full case folding), runs of white space as one space, none at the ends."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def normalised_url(url: str) -> str:
    """A URL as RFC 3986 (section 6.2) says that equal ones may be written, without its fragment.

    Scheme and host in lower case, no default port, `/` for an empty path, escapes of unreserved characters undone and
    the others in upper case. The query keeps its order; `http` and `https` differ. What is no URL stays as it is, but
    for white space at its ends.
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return url
    if not parts.scheme or not parts.hostname:
        return url
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    user = parts.netloc.rpartition("@")[0]
    shown_port = "" if port is None or _PORTS.get(parts.scheme) == port else f":{port}"
    path, query = _escapes(parts.path or "/"), _escapes(parts.query)
    return f"{parts.scheme}://{user and user + '@'}{host}{shown_port}{path}{query and '?' + query}"


def _escapes(text: str) -> str:
    def better(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if character in _UNRESERVED else match[0].upper()

    return _ESCAPE.sub(better, text)
