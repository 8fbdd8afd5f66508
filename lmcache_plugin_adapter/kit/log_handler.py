# SPDX-License-Identifier: Apache-2.0
"""Print records of :mod:`logging` as lines with a level."""

from __future__ import annotations

import logging

from . import printing


class PrintingHandler(logging.Handler):
    """Print records like :mod:`.printing`; each line of a traceback has the level's mark."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        try:
            printing.emit(_level(record.levelno), self.format(record))
        except Exception:  # noqa: BLE001 - as logging demands of a handler
            self.handleError(record)


def _level(number: int) -> int:
    if number >= logging.ERROR:
        return printing.ERROR
    if number >= logging.WARNING:
        return printing.WARNING
    return printing.INFO if number >= logging.INFO else printing.DEBUG
