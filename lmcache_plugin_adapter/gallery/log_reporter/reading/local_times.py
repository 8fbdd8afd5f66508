# SPDX-License-Identifier: Apache-2.0
"""Convert the local times of log lines to nanoseconds since 1970."""

from __future__ import annotations

import functools
from datetime import datetime, timedelta


@functools.lru_cache(maxsize=256)
def local_ns(day: str, clock: str) -> int | None:
    """Return the nanoseconds since 1970 of a local time (``2026-11-22``, ``07:06:56``)."""
    try:
        moment = datetime.strptime(f"{day} {clock}", "%Y-%m-%d %H:%M:%S")
        return int(moment.timestamp()) * 1_000_000_000
    except (ValueError, OverflowError, OSError):
        return None


@functools.lru_cache(maxsize=256)
def local_ns_without_year(day: str, clock: str, hour: int) -> int | None:
    """Return the nanoseconds since 1970 of the latest such local time (``11-22``, ``07:06:56``).

    Args:
        day: Month and day.
        clock: Time of day.
        hour: The current time in hours since 1970. A date more than a day ahead of it belongs to
            the previous year, and a leap day to the last leap year.
    """
    try:
        latest = datetime.fromtimestamp(hour * 3600) + timedelta(days=1)
    except (ValueError, OverflowError, OSError):
        return None
    for year in range(latest.year, max(latest.year - 9, 1970), -1):
        try:
            moment = datetime.strptime(f"{year}-{day} {clock}", "%Y-%m-%d %H:%M:%S")
            if moment <= latest:
                return int(moment.timestamp()) * 1_000_000_000
        except (ValueError, OverflowError, OSError):
            continue
    return None
