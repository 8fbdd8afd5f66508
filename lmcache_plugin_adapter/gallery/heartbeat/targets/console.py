# SPDX-License-Identifier: Apache-2.0
"""The log as a target: prints what would be registered, for a trial without a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.gallery.heartbeat.registrar import Messages
from lmcache_plugin_adapter.gallery.heartbeat.rhythm import Rhythm

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.gallery.engine_health.verdict import Verdict
    from lmcache_plugin_adapter.gallery.heartbeat.registration import Registration

REFRESH = 5.0
"""Seconds between two refreshes."""


class ConsoleTarget:
    """The registration of one engine, as log lines.

    Args:
        registration: The registration.
    """

    def __init__(self, registration: Registration) -> None:
        self.name = "console"
        self.where = "the log"
        self.messages = Messages(
            "Would be registered",
            "print",
            "nothing was printed",
            "Would be deregistered",
            "print the end",
        )
        self.rhythm = Rhythm(REFRESH, 1.0, None)
        self.keeps_nothing = False
        self._text = registration.to_json().decode()
        self._is_registered = False

    def refresh(self, verdict: Verdict, wanted: Callable[[], bool]) -> bool:
        """Print the registration once, then each refresh."""
        del wanted  # nothing is sent
        if not self._is_registered:
            kit.info(f"Would register {self._text}")
        else:
            kit.info(f"Would refresh the entry{': ' if verdict.reason else ''}{verdict.reason}")
        self._is_registered = True
        return True

    def complain(self, verdict: Verdict, timeout: float) -> bool:
        """Print that the entry is not refreshed."""
        del timeout
        kit.info(f"Would not refresh the entry: the engine is {verdict.state}: {verdict.reason}")
        return True

    def leave(self, timeout: float) -> None:
        """Forget the registration; the registrar prints the end."""
        del timeout
        self._is_registered = False
