"""A URL that is asked for as long as the engine works: what does not come tells the other end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

from .keeper import RefusedError, Words
from .settings import rhythm_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from lmcache_plugin_adapter.gallery.engine_health import Verdict

    from .registration import Registration
    from .settings import Ping


class PingTarget:
    """The pings of one engine.

    Args:
        settings: The URLs.
        registration: What is sent where the settings have no body.
    """

    def __init__(self, settings: Ping, registration: Registration) -> None:
        self.name = "http"
        self.words = Words(
            "The first ping was taken",
            "ping",
            "none was taken so far",
            "Pings have ended",
            "tell that pings have ended",
        )
        self.keeps_nothing = True
        self.where = settings.shown
        self.rhythm = rhythm_of(settings)
        self._settings = settings
        self._facts = msgspec.to_builtins(registration)
        self._client: httpx.Client | None = None
        self._failed = False

    def refresh(self, verdict: Verdict, wanted: Callable[[], bool]) -> bool:
        """Ask for the URL."""
        del wanted  # one request
        self._ask(self._settings, "ok", verdict.reason, self.rhythm.timeout)
        self._failed = False
        return True

    def complain(self, verdict: Verdict) -> bool:
        """Ask for the URL for failures, once."""
        url = self._settings.fail_url
        if url is None or self._failed:
            return False
        target = msgspec.structs.replace(self._settings, url=url)
        self._ask(target, verdict.state, verdict.reason, self.rhythm.timeout)
        self._failed = True
        return True

    def leave(self, timeout: float) -> None:
        """Ask for the URL for the end."""
        url = self._settings.stop_url
        if url is not None:
            target = msgspec.structs.replace(self._settings, url=url)
            self._ask(target, "ended", "", timeout)

    def _ask(self, target: Ping, state: str, reason: str, timeout: float) -> None:
        content, headers = b"", {}
        if target.method in ("POST", "PUT"):
            body = target.body
            if body is None:
                body = {**self._facts, "state": state, "reason": reason}
            content = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if self._client is None:
            self._client = self._settings.client()
        answer = target.ask(
            self._client, target.method, content=content, headers=headers, timeout=timeout
        )
        if not (answer.status in target.success if target.success else answer.accepted):
            raise RefusedError(str(answer))
