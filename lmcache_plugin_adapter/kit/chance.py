# SPDX-License-Identifier: Apache-2.0
"""Random fractions, without the cost of importing ``random``."""

from __future__ import annotations

import os


def fraction() -> float:
    """Return a random number from 0 to below 1."""
    return int.from_bytes(os.urandom(4), "little") / 2**32
