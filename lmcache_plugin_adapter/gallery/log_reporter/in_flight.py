# SPDX-License-Identifier: Apache-2.0
"""A request in flight, which the delivery can abandon."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class InFlight(threading.Thread):
    """Send a batch in a thread, because only time ends a call that hangs in the network.

    Args:
        send: Sends the batch.
    """

    def __init__(self, send: Callable[[], None]) -> None:
        super().__init__(name="batch", daemon=True)
        self._send = send
        self._error: BaseException | None = None

    def run(self) -> None:
        """Send the batch."""
        try:
            self._send()
        except BaseException as error:  # noqa: BLE001 - ``result`` raises it
            self._error = error

    def result(self) -> None:
        """Raise the exception that ``send`` raised, if any."""
        if self._error is not None:
            raise self._error
