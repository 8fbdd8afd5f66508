"""Syslog over TCP or TLS.

Syslog has no answers. What confirms a batch here is the orderly end of its connection: we end
our direction, and the server ends the other one when it has read everything. Data that it has
not read when it goes away end in a reset instead, and the batch is sent again.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
import time
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.gallery.log_reporter.delivery import UnavailableError

from .syslog_message import FACILITIES, Frame, messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lmcache_plugin_adapter.gallery.log_reporter.reading.records import Record
    from lmcache_plugin_adapter.gallery.log_reporter.settings import SyslogTarget

    from .origin import Origin

PORT, TLS_PORT = 514, 6514
_PIECE = 65536
_ENDED = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN})


class Syslog:
    """Delivers to a syslog server.

    Args:
        settings: The server.
        origin: Of all records.
    """

    def __init__(self, settings: SyslogTarget, origin: Origin) -> None:
        self._settings = settings
        self._port = settings.port or (TLS_PORT if settings.tls else PORT)
        how = "TLS" if settings.tls else "TCP"
        self.name = f"Syslog at {settings.host}:{self._port} ({how})"
        self._frame = Frame(
            FACILITIES[settings.facility],
            origin.host,
            settings.app_name,
            settings.sd_id,
            settings.max_message_bytes,
            origin,
        )

    def send(self, records: Sequence[Record], timeout: float) -> None:
        """Deliver the records; as :class:`.delivery.Target` says."""
        body = b"".join(part for record in records for part in messages(record, self._frame))
        deadline = time.monotonic() + timeout
        try:
            with self._connect(timeout) as connection:
                view = memoryview(body)
                while view:
                    connection.settimeout(_left(deadline))
                    view = view[connection.send(view[:_PIECE]) :]
                self._confirm(connection, deadline)
        except ssl.SSLCertVerificationError as error:
            raise UnavailableError(f"its certificate: {error.verify_message}") from None
        except TimeoutError:
            raise UnavailableError(f"not confirmed within {timeout:g} s") from None
        except OSError as error:
            reason = _words(error)
            if error.errno in _ENDED or isinstance(error, ssl.SSLEOFError):
                reason = "it ended the connection before it had read everything"
                if self._settings.tls and self._settings.cert_file is None:
                    reason += ", or wants a certificate ('cert_file')"
            raise UnavailableError(reason) from None

    def close(self) -> None:
        """No connection outlives a batch."""

    def _connect(self, timeout: float) -> socket.socket:
        settings = self._settings
        connection = socket.create_connection((settings.host, self._port), timeout)
        if not settings.tls:
            return connection
        try:
            return self._certificates().wrap_socket(
                connection,
                server_hostname=settings.server_name or settings.host,
                suppress_ragged_eofs=False,
            )
        except BaseException:
            connection.close()
            raise

    def _certificates(self) -> ssl.SSLContext:
        """Return what the connection is made with; files are read anew, as they are renewed."""
        settings = self._settings
        try:
            context = ssl.create_default_context(cafile=settings.ca_file)
        except OSError as error:
            raise OSError(f"cannot use ca_file {settings.ca_file!r}: {_words(error)}") from None
        if not settings.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if settings.cert_file is not None:
            try:
                # A password would be asked for on the terminal, which a plugin has not.
                context.load_cert_chain(settings.cert_file, settings.key_file, lambda: b"")
            except OSError as error:
                raise OSError(
                    f"cannot use cert_file {settings.cert_file!r}: {_words(error)}"
                ) from None
        return context

    def _confirm(self, connection: socket.socket, deadline: float) -> None:
        """End our direction, and wait until the server has ended the other one.

        Raises:
            OSError: It went away before it had read everything, or took too long.
        """
        connection.settimeout(_left(deadline))
        if isinstance(connection, ssl.SSLSocket):
            # A server may end the connection without TLS's own farewell. Whether it did so in
            # order, TCP tells below: after a reset there is nothing left to shut down.
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


def _words(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}".replace("_", " ").lower().replace("tls", "TLS")
    return error.strerror or str(error) or type(error).__name__
