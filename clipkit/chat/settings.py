"""Which server is asked, how, and what that may cost."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from clipkit.errors import UsageError
from clipkit.terminal import printable

KEYS = ("CLIPKIT_API_KEY", "OPENAI_API_KEY")
_ENDPOINT = "/chat/completions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a server is asked.

    server: its address up to `/chat/completions`. server_model: the model's name there; "": the only one it has.
    concurrency: requests at once. timeout: seconds for one request and its whole answer. retries: further tries after
    a failure that may pass, the first after about `backoff` seconds, each next after twice as long.
    max_tokens_total: no record is begun once so many tokens are spent. price: of a million tokens sent, and of as many
    answered, in any currency. max_bytes: of one answer.
    """

    server: str
    server_model: str = ""
    concurrency: int = 16
    timeout: float = 120.0
    retries: int = 4
    backoff: float = 1.0
    max_tokens_total: int | None = None
    price: tuple[float, float] | None = None
    max_bytes: int = 4 << 20

    @classmethod
    def of(cls, options: dict[str, Any]) -> Settings:
        """From options as JSON has them; those of other names are left out. Raises UsageError."""
        known = {field.name for field in fields(cls)}
        given = {name: value for name, value in options.items() if name in known}
        if not given.get("server"):
            raise UsageError("no server is named", "--server http://localhost:8000/v1, for example")
        if not given.get("server_model", "").isprintable():
            raise UsageError("--server-model: expected a name that can be printed")
        if "price" in given:
            given["price"] = tuple(given["price"])
        return cls(**given | {"server": address(given["server"])})


def address(text: str) -> str:
    """The address of a server without what every request adds to it. Raises UsageError."""
    example = "for example: --server http://localhost:8000/v1"
    try:
        parts = urlsplit(text.strip())
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise UsageError(f"--server {printable(text)}: not an address", example) from None
    if "@" in parts.netloc:  # not shown: it may hold a password
        raise UsageError("--server: an address without a name or password", f"a key is taken from {KEYS[0]}")
    if parts.scheme not in ("http", "https") or not host or not text.isprintable() or " " in text.strip():
        raise UsageError(f"--server {printable(text)}: expected http:// or https:// and a host", example)
    if parts.query or parts.fragment:
        raise UsageError("--server: an address without ? and #", example)
    path = parts.path.rstrip("/").removesuffix(_ENDPOINT).rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def api_key() -> str | None:
    """The key, from the environment alone. Raises UsageError, without it, where it cannot be sent."""
    for name in KEYS:
        if key := os.environ.get(name, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise UsageError(f"{name} is no key: expected printable ASCII")
            return key
    return None
