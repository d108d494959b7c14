"""What ends a download, and whether another try may help."""

from __future__ import annotations

import contextlib
import errno
import ssl
from collections.abc import Iterator

import aiohttp

from clipkit.errors import ClipkitError
from clipkit.images.remote import said
from clipkit.tries import Failure, tls_reason

_SHORT_OF_SOMETHING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}


@contextlib.contextmanager
def explained(url: str, seconds: float) -> Iterator[None]:
    """Turn what aiohttp raises within into a Failure about `url`. seconds: the time-out, for its message."""
    try:
        yield
    except TimeoutError:
        message = f"{said(url)}: no whole answer within {seconds:g} s"
        raise Failure("fetch-timeout", message, "--timeout gives it longer", passing=True) from None
    except (ssl.SSLError, ssl.CertificateError, aiohttp.ClientSSLError) as error:
        raise Failure("fetch-tls", f"{said(url)}: {tls_reason(error)}") from None
    except aiohttp.ClientPayloadError:
        raise Failure("fetch-truncated", f"{said(url)}: the answer broke off", passing=True) from None
    except aiohttp.InvalidURL:
        raise Failure("fetch-url", f"{said(url)}: not an address that can be asked for") from None
    except (aiohttp.ClientConnectionError, OSError) as error:
        raise _connection(url, error) from None
    except (aiohttp.ClientError, ValueError):
        # Passing: it may be what another answer on this connection left over.
        raise Failure("fetch-http", f"{said(url)}: the answer is not HTTP", passing=True) from None


def _connection(url: str, error: Exception) -> ClipkitError:
    cause = getattr(error, "os_error", error)
    number = getattr(cause, "errno", None)
    if number in _SHORT_OF_SOMETHING:
        message = f"cannot open another connection: {errno.errorcode[number]}"
        return ClipkitError(message, "lower --concurrency, or raise the limit: see ulimit -n")
    if number == errno.ECONNREFUSED:
        reason = "the connection was refused"
    elif number in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL):
        reason = "there is no way to that address"
    else:
        reason = "the connection broke off"
    return Failure("fetch-connect", f"{said(url)}: {reason}", passing=True)
