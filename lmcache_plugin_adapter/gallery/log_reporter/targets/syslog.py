# SPDX-License-Identifier: Apache-2.0
"""Send to syslog over TCP or TLS.

Syslog has no answers. The orderly end of the connection confirms a batch: the target closes its
direction, and the server closes the other one once it has read everything. If the server exits
before that, the kernel resets the connection, and the batch is sent again.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import time
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.gallery.http_client.certificates import CertificateError, client_context

from .syslog_message import Frame, framed_messages
from .target import LogTarget, TargetUnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Record
    from lmcache_plugin_adapter.gallery.log_reporter.settings import SyslogTarget

    from .origin import Origin

PORT, TLS_PORT = 514, 6514
_PIECE = 65536
_ENDED = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN})


class Syslog(LogTarget):
    """A syslog server.

    Args:
        settings: The server.
        origin: The origin of all records.
    """

    def __init__(self, settings: SyslogTarget, origin: Origin) -> None:
        self._settings = settings
        self._host = settings.host or ""
        self._port = settings.port or (TLS_PORT if settings.tls else PORT)
        how = "TLS" if settings.tls else "TCP"
        super().__init__(f"Syslog at {self._host}:{self._port} ({how})", settings.timeout)
        self._frame = Frame.of(settings, origin)

    def send(self, records: Sequence[Record], timeout: float) -> None:
        """Deliver the records; see :meth:`.target.LogTarget.send`."""
        body = b"".join(part for record in records for part in framed_messages(record, self._frame))
        deadline = time.monotonic() + timeout
        try:
            with self._connect(timeout) as connection:
                view = memoryview(body)
                while view:
                    connection.settimeout(_left(deadline))
                    view = view[connection.send(view[:_PIECE]) :]
                self._confirm(connection, deadline)
        except ssl.SSLCertVerificationError as error:
            raise TargetUnavailableError(f"its certificate: {error.verify_message}") from None
        except TimeoutError:
            raise TargetUnavailableError(f"not confirmed within {timeout:g} s") from None
        except OSError as error:
            reason = _reason(error)
            if error.errno in _ENDED or isinstance(error, ssl.SSLEOFError):
                reason = "the server closed the connection before it had read everything"
                if self._settings.tls and self._settings.cert_file is None:
                    reason += ", or requires a certificate ('cert_file')"
            raise TargetUnavailableError(reason) from None

    def _connect(self, timeout: float) -> socket.socket:
        settings = self._settings
        connection = socket.create_connection((self._host, self._port), timeout)
        if not settings.tls:
            return connection
        try:
            context = client_context(
                ca_file=settings.ca_file,
                cert_file=settings.cert_file,
                key_file=settings.key_file,
                verify=settings.verify,
            )
            return context.wrap_socket(
                connection,
                server_hostname=settings.server_name or self._host,
                suppress_ragged_eofs=False,
            )
        except BaseException:
            connection.close()
            raise

    def _confirm(self, connection: socket.socket, deadline: float) -> None:
        """Close the sending direction, and wait until the server has closed the other one.

        Raises:
            OSError: The server exited before it had read everything, or took too long.
        """
        connection.settimeout(_left(deadline))
        if isinstance(connection, ssl.SSLSocket):
            # A server may skip TLS's close_notify. TCP reveals below whether the end was orderly:
            # after a reset, ``shutdown`` fails.
            with contextlib.suppress(ssl.SSLEOFError, ssl.SSLZeroReturnError):
                connection = connection.unwrap()
        connection.shutdown(socket.SHUT_WR)
        while True:
            connection.settimeout(_left(deadline))
            if not connection.recv(4096):
                return


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _reason(error: OSError) -> str:
    if isinstance(error, CertificateError):
        return f"{error.what}: {_reason(error.error)}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}".replace("_", " ").lower().replace("tls", "TLS")
    return error.strerror or str(error) or type(error).__name__
