"""Addresses of an engine that must answer, each asked by a thread: none holds up a check."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import httpx

from lmcache_plugin_adapter.gallery.http_client.target import failure

if TYPE_CHECKING:
    from collections.abc import Callable

ANSWER_BYTES = 16 << 20
"""As much of an answer is read; vLLM's metrics have some hundred KiB."""


def accept_any(status: int, _body: bytes) -> str:
    """Return what is wrong: any answer that is no server's error will do."""
    return f"HTTP {status}" if status >= 500 else ""


def accept_ok(status: int, _body: bytes) -> str:
    """Return what is wrong with anything but 2xx."""
    return "" if 200 <= status < 300 else f"HTTP {status}"


class Question:
    """One address that must answer. A thread asks, so that nothing can hold up the check.

    Args:
        name: What is asked, for messages.
        url: The address.
        open_client: Makes the client, once, in the thread.
        judge: Returns what is wrong with status and body, or nothing.
    """

    def __init__(
        self,
        name: str,
        url: str,
        open_client: Callable[[], httpx.Client],
        judge: Callable[[int, bytes], str],
    ) -> None:
        self._name = name
        self._url = url
        self._open_client = open_client
        self._judge = judge
        self._client: httpx.Client | None = None
        self._thread: threading.Thread | None = None
        self._outcome = ""
        self.answered = False
        """Whether it ever did."""
        self.failed = 0
        """Questions in a row without a good answer."""
        self.problem = ""
        """What was wrong the last time."""

    def ask(self, timeout: float) -> None:
        """Begin to ask, unless the last question still waits."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._fetch, args=(timeout,), name=f"ask {self._url}", daemon=True
            )
            self._thread.start()

    def await_answer(self, deadline: float, timeout: float) -> None:
        """Take the answer; none by ``deadline`` (monotonic seconds) is a failure."""
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
            self.problem = f"{self._name}: {problem}"
        else:
            self.answered, self.failed, self.problem = True, 0, ""

    def _fetch(self, timeout: float) -> None:
        try:
            self._outcome = self._read(time.monotonic() + timeout)
        except httpx.HTTPError as error:
            self._outcome = failure(error)
        except Exception as error:  # noqa: BLE001 - a thread that dies would say nothing
            self._outcome = f"{type(error).__name__}: {error}"

    def _read(self, deadline: float) -> str:
        if self._client is None:
            self._client = self._open_client()
        body = bytearray()
        # A connection that is kept may be closed by the engine just when it is used again.
        close = {"Connection": "close"}
        with self._client.stream("GET", self._url, headers=close) as response:
            for piece in response.iter_bytes():
                body += piece
                if len(body) > ANSWER_BYTES:
                    return f"an answer of more than {ANSWER_BYTES >> 20} MiB"
                if time.monotonic() > deadline:
                    return "an answer that does not end"
            return self._judge(response.status_code, bytes(body))
