"""What ends a request, and whether another try may help."""

from __future__ import annotations

import contextlib
import errno
import ssl
from collections.abc import Iterator

import aiohttp

from clipkit.errors import ClipkitError, RecordError

_SHORT_OF_SOMETHING = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}
_NO_WAY = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL}


class Failure(RecordError):
    """A request that failed; `kind` starts with `chat-`.

    passing: the cause may be gone in a moment. wait: the seconds after which the server asks to be tried again.
    absent: nothing answers at the address, which is no record's fault.
    """

    def __init__(
        self,
        kind: str,
        message: str,
        hint: str | None = None,
        *,
        passing: bool = False,
        wait: float | None = None,
        absent: bool = False,
    ) -> None:
        super().__init__(kind, message, hint)
        self.passing = passing
        self.wait = wait
        self.absent = absent


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
        cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
        reason = getattr(cause, "verify_message", None)
        said = f"its certificate is not valid: {reason}" if reason else "no secure connection could be made"
        raise ClipkitError(f"{server}: {said}") from None
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
