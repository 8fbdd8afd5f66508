"""The header ``Retry-After``: how long a server asks its clients to wait."""

from __future__ import annotations

import email.utils
import time


def read_retry_after(value: str | None, now: float | None = None) -> float | None:
    """Return the seconds in a ``Retry-After`` header (a number or a date), or None.

    Args:
        value: The header, as received.
        now: Seconds since 1970; None: the current time.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return max(0.0, moment.timestamp() - (time.time() if now is None else now))
