"""In the engine: what plugins print, as records of Python's logging (``log: logging``)."""

from __future__ import annotations

import logging
import signal
import socket
import threading

from .relay import ACCEPTED

LOGGER = "vllm.lmcache_plugins"
"""Below ``vllm``, so that vLLM's logging configuration applies."""

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
        if logging.getLogger(LOGGER).hasHandlers():
            thread = threading.Thread(
                target=_run, args=(connection,), name="lmcache-plugins-log", daemon=True
            )
            connection.send(ACCEPTED, socket.MSG_NOSIGNAL)
            thread.start()
            return
    except (OSError, RuntimeError):
        pass  # the supervisor is gone, or there are no more threads
    connection.close()


def _run(connection: socket.socket) -> None:
    # The engine's signals are for its own threads.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    logger = logging.getLogger(LOGGER)
    with connection, connection.makefile("rb") as lines:
        while True:
            try:
                line = lines.readline()
            except OSError:
                return  # the supervisor was killed
            if not line:
                return
            try:
                _log(logger, line)
            except Exception:  # noqa: BLE001, S110 - nothing of a plugin's output is the engine's trouble
                pass


def _log(logger: logging.Logger, line: bytes) -> None:
    number, when, *words = line.decode("utf-8", "replace").rstrip("\n").split("\x1f", 5)
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
