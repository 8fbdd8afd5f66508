"""When a request is to be over: httpx bounds connecting, and each wait for bytes, but no whole."""

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
"""Each client's last connection: the one that it keeps, and may use again."""


class Deadline:
    """The end of one request. Its connection is broken off then, whatever it waits for.

    A name that is being looked up, or a connection that is being made, is not broken off, but
    nothing is sent any more once it is there.

    Args:
        seconds: From now on.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._changed = threading.Condition()
        self._connection: Any = None
        self._done = False
        self._passed = False

    def bring_forward(self, end: float) -> None:
        """Let it be over by ``end``, in monotonic seconds, if it was to be later."""
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
        """Do what ``client.stream`` does, once.

        ``timeout`` bounds what the deadline does not.

        Raises:
            httpx.TimeoutException: It was not over in time.
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
                    # Not SSLSocket's own: that one also takes the encryption away.
                    with contextlib.suppress(OSError):
                        socket.socket.shutdown(
                            self._connection.get_extra_info("socket"), socket.SHUT_RDWR
                        )
