# SPDX-License-Identifier: Apache-2.0
"""Check the addresses of an engine, each in a thread, so that none delays a check."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.gallery.http_client.answer import failure
from lmcache_plugin_adapter.gallery.http_client.client import Client
from lmcache_plugin_adapter.gallery.http_client.errors import HttpError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

ANSWER_BYTES = 16 << 20
"""The longest accepted answer; vLLM's metrics have some hundred KiB."""


def accept_any(status: int, _body: bytes) -> str:
    """Return what is wrong with a status: only a server error (5xx) is."""
    return f"HTTP {status}" if status >= 500 else ""


def accept_ok(status: int, _body: bytes) -> str:
    """Return what is wrong with a status: anything but 2xx is."""
    return "" if 200 <= status < 300 else f"HTTP {status}"


def engine_client(timeout: float, verify: bool) -> Callable[[], Client]:
    """Return a function that opens a client without proxies: the engine is local.

    Args:
        timeout: Seconds for connecting, and for each wait for bytes.
        verify: Whether to verify the certificate of an HTTPS server.
    """

    def certificates() -> ssl.SSLContext:
        from lmcache_plugin_adapter.gallery.http_client.certificates import client_context

        return client_context(verify=verify)

    return lambda: Client(timeout=timeout, certificates=certificates)


@dataclass(eq=False)
class Endpoint:
    """One address of the engine that must answer."""

    name: str
    """The address, for messages."""
    url: str
    open_client: Callable[[], Client]
    """Opens the client, once, in the thread."""
    judge: Callable[[int, bytes], str]
    """Returns what is wrong with status and body, or an empty text."""
    required: bool = True
    """Whether its silence is a fault."""
    answered: bool = False
    """Whether the address has answered before."""
    failed: int = 0
    """Failures in a row."""
    problem: str = ""
    """The last failure."""
    _client: Client | None = None
    _thread: threading.Thread | None = None
    _outcome: str = ""

    def start(self, timeout: float) -> None:
        """Send the request, unless the last one is still in flight."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._fetch, args=(timeout,), name=f"check {self.url}", daemon=True
            )
            self._thread.start()

    def finish(self, deadline: float, timeout: float) -> None:
        """Take the answer; no answer by ``deadline`` (monotonic seconds) is a failure."""
        if self._thread is None:
            return
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if self._thread.is_alive():
            problem = f"nothing within {timeout:g} s"
        else:
            self._thread = None
            problem = self._outcome
        if problem:
            self.failed += 1
            self.problem = f"{self.name}: {problem}"
        else:
            self.answered, self.failed, self.problem = True, 0, ""

    def _fetch(self, timeout: float) -> None:
        try:
            self._outcome = self._read(time.monotonic() + timeout)
        except HttpError as error:
            self._outcome = failure(error)
        except Exception as error:  # noqa: BLE001 - a thread must not die silently
            self._outcome = f"{type(error).__name__}: {error}"

    def _read(self, deadline: float) -> str:
        if self._client is None:
            self._client = self.open_client()
        body = bytearray()
        # The engine may close a kept connection in the moment of its next use.
        close = {"Connection": "close"}
        with self._client.stream("GET", self.url, headers=close) as response:
            for piece in response.pieces():
                body += piece
                if len(body) > ANSWER_BYTES:
                    return f"an answer of more than {ANSWER_BYTES >> 20} MiB"
                if time.monotonic() > deadline:
                    return "an answer that does not end"
            return self.judge(response.status, bytes(body))
