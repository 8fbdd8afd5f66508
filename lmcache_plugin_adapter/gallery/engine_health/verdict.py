# SPDX-License-Identifier: Apache-2.0
"""The result of a health check."""

from __future__ import annotations

from typing import Literal, NamedTuple

State = Literal["ok", "dead", "stopped", "unresponsive", "stalled", "starting"]


class Verdict(NamedTuple):
    """The result of a health check."""

    healthy: bool
    """Whether the engine works."""
    reason: str
    """For operators: the fault, or suspicious conditions of a healthy engine, or empty."""
    state: State
    """The fault, or ``ok``."""
