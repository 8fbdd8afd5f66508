# SPDX-License-Identifier: Apache-2.0
"""A deadline for a whole request: a timeout limits each wait for bytes, not the sum."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

from .errors import ConnectTimedOutError, HttpError, TimedOutError

if TYPE_CHECKING:
    from collections.abc import Iterator


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
        self._connection: socket.socket | None = None
        self._done = False
        self.passed = False
        """Whether the connection was shut down, or would have been."""

    def bring_forward(self, end: float) -> None:
        """Move the deadline to ``end`` (monotonic seconds) unless it is earlier already."""
        with self._changed:
            self._end = min(self._end, end)
            self._changed.notify()

    def watch(self, connection: socket.socket) -> None:
        """Take the connection that the request uses.

        Raises:
            ConnectTimedOutError: The deadline has passed.
        """
        with self._changed:
            self._connection = connection
            if self.passed:
                raise ConnectTimedOutError("no connection by the deadline")

    @contextlib.contextmanager
    def enforced(self) -> Iterator[None]:
        """Enforce the deadline on the request in this block; use each deadline once.

        Raises:
            TimedOutError: The request took too long.
        """
        threading.Thread(target=self._watch, name="deadline", daemon=True).start()
        try:
            yield
        except HttpError as error:
            if self.passed and not isinstance(error, TimedOutError):
                raise TimedOutError("broken off at the deadline") from error
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
                self.passed = self._done = True
                if self._connection is not None:
                    # Not SSLSocket.shutdown, which also drops the encryption.
                    with contextlib.suppress(OSError):
                        socket.socket.shutdown(self._connection, socket.SHUT_RDWR)
