"""What ends a request, and whether another try may help."""

from __future__ import annotations

import contextlib
import errno
import ssl
from collections.abc import Iterator

import aiohttp

from clipkit.errors import ClipkitError
from clipkit.tries import Failure, tls_reason

_SHORT_OF_SOMETHING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL}


@contextlib.contextmanager
def explained(server: str, seconds: float) -> Iterator[None]:
    """Turn what aiohttp raises within into a Failure of `server`. seconds: the time-out, for its message.

    Raises ClipkitError for what is no record's fault and will not pass.
    """
    try:
        yield
    except TimeoutError:
        message = f"{server}: no whole answer within {seconds:g} s"
        raise Failure("chat-timeout", message, "--timeout gives it longer", passing=True) from None
    except (ssl.SSLError, ssl.CertificateError, aiohttp.ClientSSLError) as error:
        raise ClipkitError(f"{server}: {tls_reason(error)}") from None
    except aiohttp.InvalidURL:
        raise ClipkitError(f"{server}: not an address that can be asked") from None
    except aiohttp.ClientPayloadError:
        raise Failure("chat-truncated", f"{server}: the answer broke off", passing=True) from None
    except (aiohttp.ClientConnectionError, OSError) as error:
        raise _connection(server, error) from None
    except (aiohttp.ClientError, ValueError):
        raise Failure("chat-http", f"{server}: the answer is not HTTP", passing=True) from None


def _connection(server: str, error: Exception) -> ClipkitError:
    number = getattr(getattr(error, "os_error", error), "errno", None)
    if number in _SHORT_OF_SOMETHING:
        message = f"cannot open another connection: {errno.errorcode[number]}"
        return ClipkitError(message, "lower --concurrency, or raise the limit: see ulimit -n")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        reason = "there is no such host"
    elif number == errno.ECONNREFUSED:
        reason = "nothing answers there: the connection was refused"
    elif number in _NO_WAY:
        reason = "there is no way to that address"
    else:
        return Failure("chat-connect", f"{server}: the connection broke off", passing=True)
    return Failure("chat-connect", f"{server}: {reason}", passing=True, absent=True)
