# SPDX-License-Identifier: Apache-2.0
"""Compare this host's clock with the clocks of servers, which answers show (``Date``)."""

from __future__ import annotations

import email.utils
from typing import TYPE_CHECKING

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.messages.wording import span

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOLERANCE = 30.0
"""Seconds of difference that do no harm."""


class ClockCheck:
    """Log once that this host's clock differs from a server's."""

    def __init__(self) -> None:
        self._logged = False

    def look(self, headers: Mapping[str, str], begun: float, ended: float, server: str) -> None:
        """Take an answer.

        Args:
            headers: The headers of the answer.
            begun: When the request began, in seconds since 1970.
            ended: When the headers had arrived.
            server: The server's address, for the message.
        """
        if self._logged or "Age" in headers:  # a cache has kept the answer
            return
        try:
            at = email.utils.parsedate_to_datetime(headers.get("Date", "")).timestamp()
        except (TypeError, ValueError, OverflowError):
            return
        # The server wrote the date in whole seconds, somewhere between begin and end.
        ahead = begun - at - 1 if at < begun else min(ended - at, 0.0)
        if abs(ahead) <= _TOLERANCE:
            return
        self._logged = True
        side = "ahead of" if ahead > 0 else "behind"
        kit.warning(
            f"The clock of this host is {span(abs(ahead))} {side} that of '{server}': times of "
            "alerts, records and samples are wrong, and servers may refuse them; set the clocks "
            "(NTP)"
        )


check = ClockCheck()
"""The check of this process: one line for all servers."""
