"""A URL as it is asked for: only http and https, in ASCII, what is percent-encoded kept as it is."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from urllib.parse import unquote, urljoin, urlsplit

from yarl import URL

from clipkit.images.remote import request_target, said
from clipkit.tries import Failure

_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Address:
    """url: for aiohttp, not to be encoded again. host: as it is looked up. auth: its name and password, as a header."""

    url: URL
    host: str
    auth: str | None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Raises Failure: `fetch-scheme`, `fetch-url`."""
        text = text.strip(" ")
        if _CONTROLS.search(text):
            raise Failure("fetch-url", f"{said(text)}: a URL holds no control characters")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise Failure("fetch-url", f"{said(text)}: not a URL") from None
        if parts.scheme not in ("http", "https"):
            hint = "copy it here first, for example with aws s3 cp or rclone"
            raise Failure("fetch-scheme", f"{said(text)}: only http:// and https:// are fetched", hint)
        try:
            host = URL.build(scheme=parts.scheme, host=parts.hostname or "").raw_host or ""
        except ValueError:
            host = ""
        if not host or host.startswith("."):
            raise Failure("fetch-url", f"{said(text)}: no name of a host")
        authority = (f"[{host}]" if ":" in host else host) + (f":{port}" if port is not None else "")
        try:
            url = URL(f"{parts.scheme}://{authority}{request_target(parts)}", encoded=True)
        except ValueError:
            raise Failure("fetch-url", f"{said(text)}: not a URL") from None
        return cls(url, host, _basic(parts.username, parts.password or "") if parts.username else None)

    def follow(self, location: str) -> Address:
        """Where a redirect leads. A name and password go along to the same server only. Raises Failure as `parse`."""
        try:
            there = Address.parse(urljoin(str(self.url), location))
        except ValueError:
            raise Failure("fetch-url", f"a redirect to {said(location)}: not a URL") from None
        return Address(there.url, there.host, self.auth if there.url.origin() == self.url.origin() else None)


def _basic(name: str, password: str) -> str:
    pair = f"{unquote(name)}:{unquote(password)}".encode("utf-8", "surrogatepass")
    return f"Basic {base64.b64encode(pair).decode()}"
