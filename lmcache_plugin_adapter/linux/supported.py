# SPDX-License-Identifier: Apache-2.0
"""Tell whether this system can run a supervisor."""

from __future__ import annotations

import sys


def why_unsupported() -> str | None:
    """Return why no supervisor can run on this system; None on Linux."""
    system: str = sys.platform
    if system == "linux":
        return None
    return f"{system} is not supported: the supervisor needs Linux"
