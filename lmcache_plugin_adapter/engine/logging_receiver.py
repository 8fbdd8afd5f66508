# SPDX-License-Identifier: Apache-2.0
"""Log plugins' records with Python's logging in the engine (``log: logging``)."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time

from lmcache_plugin_adapter.contract.wire import ACCEPTED, FIELD_SEPARATOR
from lmcache_plugin_adapter.linux.descriptor_identity import identity_of

EXIT_SECONDS = 5.0
"""How long the exit of the engine waits for its handlers to take what has come."""

_READ_BYTES = 1 << 16
_NEVER = float("inf")
_end = _NEVER

_LEVELS = (
    *(logging.CRITICAL,) * 3,
    logging.ERROR,
    logging.WARNING,
    *(logging.INFO,) * 2,
    logging.DEBUG,
)


def start(fd: int, name: str) -> None:
    """Log the records that arrive on ``fd``, on a thread of their own; never raises.

    If the logger has no handlers, ``fd`` is closed: the supervisor then writes to
    stderr itself.

    Args:
        fd: A connected socket.
        name: The name of the logger.
    """
    connection = socket.socket(fileno=fd)
    try:
        logger = logging.getLogger(name)
        if _end == _NEVER and logger.hasHandlers():
            thread = _Reader(connection, logger)
            connection.send(ACCEPTED, socket.MSG_NOSIGNAL)
            thread.start()
            return
    except (OSError, RuntimeError):
        pass  # the supervisor is gone, or there are no more threads
    connection.close()


def finish() -> None:
    """Log what has come, and take no more: the supervisor writes that to stderr.

    As this process exits: a thread that still held the lock of its stderr then
    would abort it.
    """
    global _end  # noqa: PLW0603 - the end of this process
    readers = [
        each for each in threading.enumerate() if isinstance(each, _Reader) and each.is_alive()
    ]
    _end = min(_end, time.monotonic() + EXIT_SECONDS)
    for reader in readers:
        reader.take_no_more()
    for reader in readers:
        reader.join(max(0.0, _end - time.monotonic()))


class _Reader(threading.Thread):
    """Logs the records that arrive on ``connection``."""

    def __init__(self, connection: socket.socket, logger: logging.Logger) -> None:
        super().__init__(name="lmcache-plugins-log", daemon=True)
        self._logger = logger
        self._connection = connection
        self._identity = identity_of(connection.fileno())

    def take_no_more(self) -> None:
        """Have the thread end when it has read what is there."""
        try:
            if self._is_ours():
                self._connection.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # it has ended

    def run(self) -> None:
        """Read to the end."""
        if threading.get_native_id() != os.getpid():
            # The engine's own threads handle its signals. Where gevent has replaced
            # threads, this is the main thread.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        rest = b""
        while time.monotonic() < _end and self._is_ours():
            try:
                part = self._connection.recv(_READ_BYTES)
            except OSError:
                break  # the supervisor was killed
            if not part:
                break  # of a record cut short, the supervisor writes the whole
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                if time.monotonic() >= _end:
                    break
                try:
                    _log(self._logger, line)
                except Exception:  # noqa: BLE001, S110 - a plugin's output must not disturb the engine
                    pass
        if self._is_ours():
            self._connection.close()
        else:
            self._connection.detach()

    def _is_ours(self) -> bool:
        """Whether the host has left our descriptor open."""
        return identity_of(self._connection.fileno()) == self._identity


def _log(logger: logging.Logger, line: bytes) -> None:
    fields = line.split(FIELD_SEPARATOR, 5)
    number, when, *words = (field.decode("utf-8", "replace") for field in fields)
    name, file, pid, text = words
    level = _LEVELS[int(number)]
    if not logger.isEnabledFor(level):
        return
    message = f"[{name}] {text}"
    extra = {"plugin": name}
    record = logger.makeRecord(logger.name, level, file, int(pid), message, (), None, None, extra)
    record.created = float(when)
    record.msecs = record.created % 1 * 1000
    record.process = int(pid)
    record.processName = name
    logger.handle(record)
