# SPDX-License-Identifier: Apache-2.0
"""A deadline for a whole request: httpx limits connecting and each wait for bytes, not the sum."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_OPENED = (".connect_tcp.complete", ".connect_unix_socket.complete", ".start_tls.complete")
_SENDING = ".send_request_headers.started"

_last: WeakKeyDictionary[httpx.Client, Any] = WeakKeyDictionary()
"""The last connection of each client, which the client may reuse."""


class Deadline:
    """Shut down the connection of one request when its time is over.

    A name lookup or a connection attempt is not interrupted, but after the deadline the client
    sends nothing on the new connection.

    Args:
        seconds: Time from now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._changed = threading.Condition()
        self._connection: Any = None
        self._done = False
        self._passed = False

    def bring_forward(self, end: float) -> None:
        """Move the deadline to ``end`` (monotonic seconds) unless it is earlier already."""
        with self._changed:
            self._end = min(self._end, end)
            self._changed.notify()

    @contextlib.contextmanager
    def stream(
        self,
        client: httpx.Client,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout: float,
        content: bytes = b"",
    ) -> Iterator[httpx.Response]:
        """Call ``client.stream`` under this deadline; use each deadline once.

        ``timeout`` limits connecting and each wait for bytes.

        Raises:
            httpx.TimeoutException: The request took too long.
            httpx.HTTPError: As from ``client.stream``.
        """

        def trace(event: str, info: Mapping[str, Any]) -> None:
            if event.endswith(_OPENED):
                self._connection = _last[client] = info["return_value"]
            elif event.endswith(_SENDING) and self._passed:
                raise httpx.ConnectTimeout("no connection by the deadline")

        self._connection = _last.get(client)
        threading.Thread(target=self._watch, name="deadline", daemon=True).start()
        try:
            with client.stream(
                method,
                url,
                headers=dict(headers),
                timeout=timeout,
                extensions={"trace": trace},
                content=content,
            ) as response:
                yield response
        except httpx.TransportError as error:
            if self._passed and not isinstance(error, httpx.TimeoutException):
                raise httpx.ReadTimeout("broken off at the deadline") from error
            raise
        finally:
            with self._changed:
                self._done = True
                self._changed.notify()

    def _watch(self) -> None:
        with self._changed:
            while not self._done:
                left = self._end - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                self._passed = self._done = True
                if self._connection is not None:
                    # Not SSLSocket.shutdown, which also drops the encryption.
                    with contextlib.suppress(OSError):
                        socket.socket.shutdown(
                            self._connection.get_extra_info("socket"), socket.SHUT_RDWR
                        )
