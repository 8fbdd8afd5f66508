"""Chance, without the weight of the module ``random``."""

from __future__ import annotations

import os


def fraction() -> float:
    """Return a number from 0 to below 1, different in every process."""
    return int.from_bytes(os.urandom(4), "little") / 2**32
