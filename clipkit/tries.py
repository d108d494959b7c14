"""Requests that failed: whether another try may help, and when. For downloads and for servers that are asked."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from clipkit.errors import RecordError


class Failure(RecordError):
    """A request that failed.

    passing: the cause may be gone in a moment. wait: the seconds after which the server asks to be tried again.
    absent: nothing answers at the address.
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


def asked_wait(retry_after: str) -> float | None:
    """What the header Retry-After asks for: seconds, or a date; None if it is neither."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        when = parsedate_to_datetime(retry_after)
        return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):  # the year 10000, say
        return None


def tls_reason(error: Exception) -> str:
    """Why a secure connection failed, of what aiohttp or ssl raised."""
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    reason = getattr(cause, "verify_message", None)
    return f"its certificate is not valid: {reason}" if reason else "no secure connection could be made"
