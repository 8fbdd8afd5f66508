# SPDX-License-Identifier: Apache-2.0
"""Convert the times of log lines to nanoseconds since 1970."""

from __future__ import annotations

import functools
import re
from datetime import datetime, timedelta, timezone

STAMP = (
    r"(?P<day>\d{4}[-/]\d\d[-/]\d\d)[ T](?P<clock>\d\d:\d\d:\d\d)(?:[.,](?P<fraction>\d{1,9}))?"
    r"(?P<zone>Z| ?[+-]\d\d:?\d\d(?!\d))?"
)
"""A date with a time; local time if it has no zone."""

_STAMP = re.compile(STAMP)
_ZONE = re.compile(r" ?([+-])(\d\d):?(\d\d)")

_LATEST = 253402300800
"""The end of the year 9999, in seconds since 1970."""


@functools.lru_cache(maxsize=256)
def local_ns(day: str, clock: str) -> int | None:
    """Return the nanoseconds since 1970 of a local time (``2026-11-22``, ``07:06:56``)."""
    try:
        moment = datetime.strptime(f"{day} {clock}", "%Y-%m-%d %H:%M:%S")
        return int(moment.timestamp()) * 1_000_000_000
    except (ValueError, OverflowError, OSError):
        return None


@functools.lru_cache(maxsize=256)
def zoned_ns(day: str, clock: str, zone: str) -> int | None:
    """Return the nanoseconds since 1970 of a time with a zone (``Z``, ``+01:00``, ``+0100``)."""
    offset = timedelta()
    if zone != "Z":
        found = _ZONE.fullmatch(zone)
        if found is None:
            return None
        offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
        offset = -offset if found[1] == "-" else offset
    try:
        moment = datetime.strptime(f"{day} {clock}", "%Y-%m-%d %H:%M:%S")
        moment = moment.replace(tzinfo=timezone.utc) - offset
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


def stamped_ns(found: re.Match[str]) -> int | None:
    """Return the nanoseconds since 1970 of a match of :data:`STAMP`."""
    day, zone = found["day"].replace("/", "-"), found["zone"]
    at = zoned_ns(day, found["clock"], zone) if zone else local_ns(day, found["clock"])
    return None if at is None else at + int((found["fraction"] or "0").ljust(9, "0"))


def any_time_ns(value: object) -> int | None:
    """Return the nanoseconds since 1970 of a time in a JSON record, or None.

    Args:
        value: A date as text, or seconds, milliseconds, microseconds or nanoseconds since 1970,
            as a number or as text.
    """
    if isinstance(value, str):
        found = _STAMP.match(value.strip())
        if found is not None:
            return stamped_ns(found)
        try:
            value = float(value) if "." in value else int(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        return None
    for unit in (1, 1_000, 1_000_000, 1_000_000_000):
        if value / unit < _LATEST / 25:  # before the year 2291
            if isinstance(value, int):
                return value * (1_000_000_000 // unit)
            return round(value / unit * 1_000_000) * 1_000  # floats do not hold more digits
    return None
