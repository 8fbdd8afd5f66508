# SPDX-License-Identifier: Apache-2.0
"""Read sizes: numbers of bytes, or text such as ``64KiB``, ``10MiB``, ``2GB``."""

from __future__ import annotations

import re

from lmcache_plugin_adapter.messages.problem import InvalidValueError

SIZE_PATTERN = r"^[0-9]+([.][0-9]+)? ?([bB]|[kmgtKMGT]([iI][bB]?|[bB]))$"
"""The text form of a size, for the JSON Schema of the settings."""

_BYTES: dict[str, int] = {
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", 1)},
    **{f"{prefix}i": 1024**power for power, prefix in enumerate("kmgt", 1)},  # as in Kubernetes
}
_SIZE = r"([0-9]{1,15})(?:\.([0-9]{1,9}))? ?([A-Za-z]+)"


def read_size(value: object) -> int:
    """Return a size in bytes.

    Args:
        value: A whole number of bytes, or text: a number with its unit (``KiB`` is 1,024 bytes,
            ``KB`` is 1,000). A bare ``K`` or ``M`` is refused: programs disagree on it.

    Raises:
        InvalidValueError: ``value`` is no size.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise InvalidValueError
    if value.isdigit():
        raise InvalidValueError("write it without quotes, or with its unit")
    found = re.fullmatch(_SIZE, value)
    if found is None:
        raise InvalidValueError
    whole, fraction, unit = found[1], found[2] or "", found[3].lower()
    if unit not in _BYTES:
        raise InvalidValueError("units are B, KiB, MiB, GiB, TiB, and KB, MB, GB, TB (of 1,000)")
    divisor: int = 10 ** len(fraction)
    count, rest = divmod(int(whole + fraction) * _BYTES[unit], divisor)
    if rest:
        raise InvalidValueError("it is no whole number of bytes")
    return count
