# SPDX-License-Identifier: Apache-2.0
"""Send to syslog over UDP (RFC 5426), or to the local syslog daemon or journald at ``/dev/log``.

Neither confirms messages. An error that the kernel reports leads to a retry of the batch.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from typing import TYPE_CHECKING

from .syslog_message import Frame, local_messages, messages
from .target import LogTarget, TargetUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Record
    from lmcache_plugin_adapter.gallery.log_reporter.settings import SyslogTarget

    from .origin import Origin

_ANSWER = 0.05
"""Seconds in which a host reports that nobody listens at a UDP port."""

_PORT = 514


class DatagramSyslog(LogTarget):
    """A syslog server that is reached by datagrams.

    Args:
        settings: The server.
        origin: The origin of all records.
    """

    def __init__(self, settings: SyslogTarget, origin: Origin) -> None:
        self._settings = settings
        self._local = settings.protocol == "local"
        port = settings.port or _PORT
        name = settings.socket if self._local else f"{settings.host}:{port} (UDP)"
        super().__init__(f"Syslog at {name}", settings.timeout)
        self._address = (settings.host or "", port)
        self._frame = Frame.of(settings, origin)

    def send(self, records: Sequence[Record], timeout: float) -> None:
        """Deliver the records; see :meth:`.target.LogTarget.send`."""
        deadline = time.monotonic() + timeout
        form = local_messages if self._local else messages
        try:
            with self._connect(timeout) as connection:
                stream = connection.type == socket.SOCK_STREAM
                for record in records:
                    for message in form(record, self._frame):
                        connection.settimeout(max(deadline - time.monotonic(), 0.001))
                        connection.sendall(message + b"\n" if stream else message)
                if not self._local:
                    connection.settimeout(_ANSWER)
                    with contextlib.suppress(TimeoutError):
                        connection.recv(1)
        except TimeoutError:
            raise TargetUnavailableError(f"not accepted within {timeout:g} s") from None
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                text = "a message is too long for a datagram ('max_message_bytes')"
                raise TargetUnavailableError(text) from None
            raise TargetUnavailableError(error.strerror or str(error)) from None

    def _connect(self, timeout: float) -> socket.socket:
        if self._local:
            return _unix(self._settings.socket, timeout)
        host, port = self._address
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        connection = socket.socket(found[0], found[1] | socket.SOCK_CLOEXEC)
        try:
            connection.connect(found[4])
        except BaseException:
            connection.close()
            raise
        return connection


def _unix(path: str, timeout: float) -> socket.socket:
    """Return a connection to a socket of datagrams, or else of streams."""
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        connection = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
        connection.settimeout(timeout)
        try:
            connection.connect(path)
        except OSError as error:
            connection.close()
            if error.errno != errno.EPROTOTYPE or kind == socket.SOCK_STREAM:
                raise
        else:
            return connection
    raise OSError(errno.EPROTOTYPE, os.strerror(errno.EPROTOTYPE))
