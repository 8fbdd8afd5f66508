# SPDX-License-Identifier: Apache-2.0
"""Send a probe request to an idle engine: an engine that hangs while idle shows no other sign."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.gallery.http_client.answer import failure
from lmcache_plugin_adapter.gallery.http_client.errors import HttpError, TimedOutError

if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.gallery.http_client.client import Client

    from .settings import ProbeRequest


class IdleProbe:
    """Send the request when it is due, in a thread, and judge the answer.

    Args:
        settings: The request.
        clock: A monotonic clock, in seconds.
    """

    def __init__(self, settings: ProbeRequest, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._content = json.dumps(settings.body).encode()
        self._client: Client | None = None
        self._thread: threading.Thread | None = None
        self._begun = 0.0
        self._last = clock()
        self._outcome: tuple[bool, str] = (True, "")
        self.stalled = ""
        """Why the engine counts as stalled; empty if it does not."""
        self.odd = ""
        """Another problem, such as a request that the engine refuses."""

    def look(self, moved_at: float | None) -> None:
        """Send a request if one is due; judge the last one once it is done.

        Args:
            moved_at: When the engine last made progress, by the clock; None: never.
        """
        now = self._clock()
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
            self._judge(now)
        if moved_at is not None and moved_at > self._begun:
            self.stalled = ""  # it waits among other requests, which make progress
        due = self._last if moved_at is None else max(self._last, moved_at)
        if self._thread is None and (self.stalled or now >= due + self._settings.interval):
            self._begun = now
            self._thread = threading.Thread(target=self._send, name="probe", daemon=True)
            self._thread.start()

    def _judge(self, now: float) -> None:
        answered, text = self._outcome
        self._last = now
        self.odd = text if answered else ""
        if answered:
            self.stalled = ""
        else:
            self.stalled = f"an idle engine did not answer a request: {text}"

    def _send(self) -> None:
        try:
            if self._client is None:
                self._client = self._settings.client(proxies=False)  # the engine is local
            answer = self._settings.ask(
                self._client,
                "POST",
                content=self._content,
                headers={"Content-Type": "application/json", "Connection": "close"},
            )
        except TimedOutError:
            self._outcome = False, f"nothing within {self._settings.timeout:g} s"
        except HttpError as error:
            self._outcome = False, failure(error)
        except Exception as error:  # noqa: BLE001 - a thread must not die silently
            self._outcome = True, f"cannot send the probe request: {failure(error)}"
        else:
            text = "" if answer.accepted else f"the probe request was refused: {answer}"
            self._outcome = answer.status < 500, text
