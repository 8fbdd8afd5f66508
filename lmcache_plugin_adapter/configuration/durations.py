# SPDX-License-Identifier: Apache-2.0
"""Read durations: numbers of seconds, or text such as ``500ms``, ``30s``, ``5m``, ``1h30m``."""

from __future__ import annotations

import math
import re

from lmcache_plugin_adapter.messages.problem import InvalidValueError

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_PART = r"([0-9]+(?:\.[0-9]+)?) ?(ms|[smhd])(?![a-z]) ?"
DURATION_PATTERN = r"^([0-9]+([.][0-9]+)? ?(ms|s|m|h|d) ?)+$"
"""The text form of a duration, for the JSON Schema of the settings."""


def read_duration(value: object) -> float:
    """Return a duration in seconds.

    Args:
        value: A number of seconds, or text: one or more numbers, each with its unit
            (``ms``, ``s``, ``m``, ``h`` or ``d``).

    Raises:
        InvalidValueError: ``value`` is no duration.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.inf
        if math.isfinite(seconds):
            return seconds
    elif isinstance(value, str):
        if re.fullmatch(r"\d+(\.\d+)?", value, re.ASCII):
            raise InvalidValueError("write it without quotes, or with its unit")
        units = re.findall(r"[^\W\d]+", value)
        if value[:1].isdigit() and any(unit not in _SECONDS for unit in units):
            raise InvalidValueError("units are ms, s, m, h and d")
        parts = re.findall(_PART, value)
        if parts and not re.sub(_PART, "", value):
            return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    raise InvalidValueError
