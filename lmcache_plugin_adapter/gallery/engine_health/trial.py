"""A request to an idle engine, now and then: one that hangs while it is idle does not show."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Annotated

import httpx
from msgspec import Meta

from lmcache_plugin_adapter.gallery.http_client.target import HttpTarget, failure

if TYPE_CHECKING:
    from collections.abc import Callable


class Trial(HttpTarget, kw_only=True, forbid_unknown_fields=True):
    """A small request to the engine, for when nobody else has any."""

    body: Annotated[
        dict[str, object],
        Meta(
            description=(
                "What is sent, as JSON: "
                '`{"model": "m", "prompt": "x", "max_tokens": 1}` for `/v1/completions`.'
            )
        ),
    ]
    interval: Annotated[
        float,
        Meta(gt=0, le=86400, description="Seconds without progress after which it is sent."),
    ] = 60.0
    timeout: Annotated[
        float,
        Meta(
            gt=0,
            le=3600,
            description="Seconds without an answer, nor any other progress, that mean `stalled`.",
        ),
    ] = 30.0

    def client(self, timeout: float | None = None) -> httpx.Client:
        """Return a client as for any target, past all proxies: the engine is here."""
        usual = super().client(timeout)
        return httpx.Client(
            headers=usual.headers,
            auth=usual.auth,
            verify=self._certificates(),
            timeout=usual.timeout,
            trust_env=False,
        )


class Trials:
    """Sends the request when it is due, in a thread, and judges the answer.

    Args:
        settings: What to send.
        clock: Seconds that only grow.
    """

    def __init__(self, settings: Trial, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._content = json.dumps(settings.body).encode()
        self._client: httpx.Client | None = None
        self._thread: threading.Thread | None = None
        self._begun = 0.0
        self._last = clock()
        self._outcome: tuple[bool, str] = (True, "")
        self.stalled = ""
        """Why the engine counts as stalled, or empty."""
        self.odd = ""
        """What else is wrong, such as a request that the engine does not understand."""

    def look(self, moved_at: float | None) -> None:
        """Send a request if it is due, or see what became of the last one.

        Args:
            moved_at: When the engine was last seen to get on, by the clock; None: never.
        """
        now = self._clock()
        if self._thread is not None and not self._thread.is_alive():
            self._thread = None
            self._judge(now)
        if moved_at is not None and moved_at > self._begun:
            self.stalled = ""  # it waits among others, and they get on
        due = self._last if moved_at is None else max(self._last, moved_at)
        if self._thread is None and (self.stalled or now >= due + self._settings.interval):
            self._begun = now
            self._thread = threading.Thread(target=self._send, name="trial", daemon=True)
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
                self._client = self._settings.client()
            answer = self._settings.ask(
                self._client,
                "POST",
                content=self._content,
                headers={"Content-Type": "application/json", "Connection": "close"},
            )
        except httpx.TimeoutException:
            self._outcome = False, f"nothing within {self._settings.timeout:g} s"
        except httpx.HTTPError as error:
            self._outcome = False, failure(error)
        except Exception as error:  # noqa: BLE001 - a thread that dies would say nothing
            self._outcome = True, f"cannot send the trial request: {failure(error)}"
        else:
            text = "" if answer.accepted else f"the trial request was refused: {answer}"
            self._outcome = answer.status < 500, text
