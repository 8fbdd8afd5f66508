# SPDX-License-Identifier: Apache-2.0
"""The delay before a restart of a plugin or a supervisor. Pure."""

from __future__ import annotations

JITTER = 0.1
"""The largest share that is added to a delay, so that many engines do not restart in step."""


def backoff_delay(attempt: int, initial: float, maximum: float, random: float = 0.0) -> float:
    """Return the seconds to wait before restart number ``attempt`` (1 is the first).

    Doubles from ``initial`` to ``maximum``. ``random``, a number in [0, 1),
    adds up to :data:`JITTER` of the delay.
    """
    # 2.0 ** 64 seconds exceeds any maximum: the limit keeps the power finite.
    delay = min(initial * 2.0 ** min(max(attempt, 1) - 1, 64), maximum)
    return delay * (1.0 + JITTER * random)
