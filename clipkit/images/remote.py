"""Images from the network, for `--remote`: only http and https, only public addresses, bounded in size and time."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from clipkit import __version__
from clipkit.errors import RecordError
from clipkit.images.formats import READ_HERE, describe, sniff
from clipkit.images.limits import Limits
from clipkit.references import shown

_REDIRECTS = 5
_STEP_SECONDS = 10.0  # one connect, one read
_TOTAL_SECONDS = 60.0  # one request, however slowly it drips
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_HINT = "clipkit fetch downloads with retries and a report"
_CREDENTIALS = re.compile(r"(?<=//)[^/?#]*@")
_RESERVED = "!#$%&'()*+,/:;=?@[]~"  # as they are, percent signs too: what is encoded stays encoded


def is_public(address: str) -> bool:
    """Whether a numeric address is on the open internet: not private, loopback, link-local, multicast or reserved.

    An IPv6 address that stands for an IPv4 one (mapped, NAT64, 6to4) is judged by that.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:  # fec0::/10, which Python calls global
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def said(url: str) -> str:
    """A URL for a message: short, on one line, without the name and password that it may carry."""
    return shown(_CREDENTIALS.sub("", url))


def request_target(parts: SplitResult) -> str:
    """What a request asks a server for: path and query, in ASCII."""
    path, query = quote(parts.path or "/", safe=_RESERVED), quote(parts.query, safe=_RESERVED)
    return f"{path}?{query}" if query else path


def download(
    url: str,
    limits: Limits = Limits(),
    *,
    allowed: Callable[[str], bool] = is_public,
    total_seconds: float = _TOTAL_SECONDS,
) -> bytes:
    """The bytes of an image by http or https, at most five redirects away.

    Every hop's name is resolved once, all its addresses must be `allowed`, and the connection goes to the address
    that was checked. Proxies of the environment are not used. Raises RecordError: `image-remote`,
    `image-too-large`, `image-format` (the content is not an image that clipkit reads).
    """
    for _ in range(_REDIRECTS + 1):
        try:
            data, target = _request(url, limits, allowed, total_seconds)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise RecordError("image-remote", f"{said(url)}: {error or type(error).__name__}", _HINT) from None
        if target is None:
            break
        url = target
    else:
        raise RecordError("image-remote", f"{said(url)}: more than {_REDIRECTS} redirects", _HINT)
    if sniff(data[:1024]) is None:
        raise RecordError("image-format", f"{said(url)} is not an image: it looks like {describe(data)}", READ_HERE)
    return data


def _request(url: str, limits: Limits, allowed: Callable[[str], bool], seconds: float) -> tuple[bytes, str | None]:
    """One request: the body, or where it redirects to."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RecordError("image-remote", f"{said(url)}: only http:// and https:// are opened", _HINT)
    sock = _connect(parts, allowed)
    # Time-outs are by the step: a server that sends a byte now and then is ended by the clock.
    clock = threading.Timer(seconds, _cut, [sock])
    clock.daemon = True
    deadline = time.monotonic() + seconds
    clock.start()
    try:
        if isinstance(sock, ssl.SSLSocket):
            sock.do_handshake()
        answer = _exchange(url, parts, sock, limits)
        if time.monotonic() >= deadline:  # what came may be cut off
            raise TimeoutError(f"took longer than {seconds:g} s")
        return answer
    finally:
        clock.cancel()
        sock.close()


def _exchange(url: str, parts: SplitResult, sock: socket.socket, limits: Limits) -> tuple[bytes, str | None]:
    connection = http.client.HTTPConnection(parts.netloc.rpartition("@")[2])
    connection.sock = sock
    connection.auto_open = 0  # never to an address that was not checked
    headers = {"User-Agent": f"clipkit/{__version__}", "Accept": "image/*", "Accept-Encoding": "identity"}
    connection.request("GET", request_target(parts), headers=headers)
    with contextlib.closing(connection.getresponse()) as response:
        if response.status in (301, 302, 303, 307, 308):
            return b"", urljoin(url, response.headers.get("Location", ""))
        if response.status != 200:
            raise RecordError("image-remote", f"{said(url)}: status {response.status} {response.reason}", _HINT)
        if (response.length or 0) > limits.max_bytes:
            raise _too_large(url, limits)
        data = response.read(limits.max_bytes + 1)
        if len(data) > limits.max_bytes:
            raise _too_large(url, limits)
        if response.length:
            raise http.client.IncompleteRead(data, response.length)
        return data, None


def _connect(parts: SplitResult, allowed: Callable[[str], bool]) -> socket.socket:
    """A socket to the address that was checked, for https before its handshake."""
    sock = socket.create_connection(_checked_address(parts, allowed), timeout=_STEP_SECONDS)
    if parts.scheme == "http":
        return sock
    context = ssl.create_default_context()
    return context.wrap_socket(sock, server_hostname=parts.hostname, do_handshake_on_connect=False)


def _cut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _checked_address(parts: SplitResult, allowed: Callable[[str], bool]) -> tuple[str, int]:
    """The numeric address and port to connect to; refused if the name leads anywhere that is not allowed."""
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    addresses = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    for address in addresses:
        if not allowed(address):
            message = f"{host} is at {address}, which is not a public address"
            raise RecordError("image-remote", message, "copy the file here if you trust it")
    return addresses[0], port


def _too_large(url: str, limits: Limits) -> RecordError:
    return RecordError("image-too-large", f"{said(url)} is over the limit of {limits.max_bytes:,} bytes")
