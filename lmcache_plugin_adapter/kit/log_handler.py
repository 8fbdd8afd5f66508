"""Records of :mod:`logging` as lines with a level."""

from __future__ import annotations

import logging

from . import printing


class PrintingHandler(logging.Handler):
    """Prints records as :mod:`.printing` does; a traceback is marked on each of its lines."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        try:
            printing.emit(_level(record.levelno), self.format(record))
        except Exception:  # noqa: BLE001 - what logging asks of a handler
            self.handleError(record)


def _level(number: int) -> int:
    if number >= logging.ERROR:
        return printing.ERROR
    if number >= logging.WARNING:
        return printing.WARNING
    return printing.INFO if number >= logging.INFO else printing.DEBUG
