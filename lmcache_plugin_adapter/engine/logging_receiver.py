"""In the engine: what plugins print, as records of Python's logging (``log: logging``)."""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time

from lmcache_plugin_adapter.contract.wire import ACCEPTED, FIELD_SEPARATOR

LOGGER = "vllm.lmcache_plugins"
"""Below ``vllm``, so that vLLM's logging configuration applies."""

EXIT_SECONDS = 5.0
"""How long the exit of the engine waits for its handlers to take what has come."""

_NEVER = float("inf")
_end = _NEVER

_LEVELS = (
    *(logging.CRITICAL,) * 3,
    logging.ERROR,
    logging.WARNING,
    *(logging.INFO,) * 2,
    logging.DEBUG,
)


def start(fd: int) -> None:
    """Log what comes from ``fd``, on a thread of its own; never raises.

    Where logging is not set up at all, ``fd`` is closed: the supervisor then
    writes to stderr itself.
    """
    connection = socket.socket(fileno=fd)
    try:
        if _end == _NEVER and logging.getLogger(LOGGER).hasHandlers():
            thread = _Reader(connection)
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
    """Logs what comes on ``connection``."""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(name="lmcache-plugins-log", daemon=True)
        self._connection = connection

    def take_no_more(self) -> None:
        """Have the thread end when it has read what is there."""
        try:
            self._connection.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # it has ended

    def run(self) -> None:
        """Read to the end."""
        # The engine's signals are for its own threads.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        logger = logging.getLogger(LOGGER)
        with self._connection, self._connection.makefile("rb") as lines:
            while time.monotonic() < _end:
                try:
                    line = lines.readline()
                except OSError:
                    return  # the supervisor was killed
                if not line.endswith(b"\n"):
                    return  # of a record cut short, the supervisor writes the whole
                try:
                    _log(logger, line)
                except Exception:  # noqa: BLE001, S110 - nothing of a plugin's output is the engine's trouble
                    pass


def _log(logger: logging.Logger, line: bytes) -> None:
    fields = line.rstrip(b"\n").split(FIELD_SEPARATOR, 5)
    number, when, *words = (field.decode("utf-8", "replace") for field in fields)
    name, file, pid, text = words
    level = _LEVELS[int(number)]
    if not logger.isEnabledFor(level):
        return
    message = f"[{name}] {text}"
    extra = {"plugin": name}
    record = logger.makeRecord(LOGGER, level, file, int(pid), message, (), None, None, extra)
    record.created = float(when)
    record.msecs = record.created % 1 * 1000
    record.process = int(pid)
    record.processName = name
    logger.handle(record)
