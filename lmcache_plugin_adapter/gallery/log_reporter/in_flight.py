"""A batch under way, which can be left behind."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .delivery import Target
    from .records import Record


class Flight(threading.Thread):
    """Has a target take records, in a thread: nothing but time ends what hangs in a network.

    Args:
        target: Where they go.
        records: What it is to take.
        timeout: Seconds that it has.
    """

    def __init__(self, target: Target, records: Sequence[Record], timeout: float) -> None:
        super().__init__(name="batch", daemon=True)
        self._target = target
        self._records = records
        self._timeout = timeout
        self._error: BaseException | None = None

    def run(self) -> None:
        """Deliver."""
        try:
            self._target.send(self._records, self._timeout)
        except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
            self._error = error

    def result(self) -> None:
        """Raise what the target has raised."""
        if self._error is not None:
            raise self._error
