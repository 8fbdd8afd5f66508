# SPDX-License-Identifier: Apache-2.0
"""Open connections: TCP or a unix socket, direct or through a proxy, with or without TLS."""

from __future__ import annotations

import base64
import contextlib
import io
import socket
import sys
from typing import TYPE_CHECKING, Any

from .address import Address, parse
from .errors import (
    ConnectError,
    ConnectTimedOutError,
    HeaderError,
    HttpError,
    ProxyError,
    ReadError,
    RemoteProtocolError,
    TimedOutError,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator

    from .deadline import Deadline

# http.client imports ssl if it is there, which takes 2 MB. It works without; ``Connection`` itself
# adds TLS.
if "ssl" in sys.modules:
    import http.client
else:
    sys.modules["ssl"] = None  # type: ignore[assignment]
    try:
        import http.client
    finally:
        del sys.modules["ssl"]


class _Lines(io.BufferedReader):
    """Refuse a line that the end of the connection cuts; http.client takes it for a whole one."""

    begun = False

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        if not line.endswith(b"\n") and len(line) != size and (line or self.begun):
            raise http.client.IncompleteRead(line)
        self.begun = True
        return line


class Answer(http.client.HTTPResponse):
    """An answer whose headers are complete."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = _Lines(self.fp.detach())

    def _read_status(self) -> tuple[str, int, str]:
        """Skip interim answers, of which http.client skips 100 only."""
        while True:
            found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]
            if not 102 <= found[1] < 200:
                return found
            http.client.parse_headers(self.fp)


class Connection(http.client.HTTPConnection):
    """One connection to a server or its proxy.

    Args:
        address: The server.
        proxy: The URL of the proxy; None: connect directly.
        unix_socket: The server's unix socket; replaces the host.
    """

    auto_open = 0
    response_class = Answer

    def __init__(self, address: Address, proxy: str | None, unix_socket: str | None) -> None:
        self._server = address
        self._unix_socket = unix_socket
        self._proxy = None if proxy is None else _proxy(proxy)
        first = address if self._proxy is None else self._proxy
        super().__init__(first.host, first.effective_port)

    def request_target(self, address: Address, headers: dict[str, str]) -> str:
        """Return what the request line names; add the headers that depend on the connection."""
        if not any(name.lower() == "host" for name in headers):
            headers["Host"] = address.authority
        if self._proxy is None or address.scheme == "https":
            return address.target
        headers.update(_credentials(self._proxy))
        return str(address)

    def prepare(
        self, timeout: float, tls: Callable[[], ssl.SSLContext], deadline: Deadline | None
    ) -> None:
        """Connect unless that is done, and set the limits of the next request.

        Args:
            timeout: Seconds for connecting, and for each wait for bytes.
            tls: Returns the context of a connection with TLS.
            deadline: Gets the connection, which it may shut down.

        Raises:
            HttpError: There is no connection.
        """
        self.timeout = timeout
        watch = _watch_nothing if deadline is None else deadline.watch
        if self.sock is not None:
            self.sock.settimeout(timeout)
            watch(self.sock)
            return
        context = tls() if self._server.scheme == "https" else None
        try:
            self._open(context, watch)
        except TimeoutError as error:
            raise ConnectTimedOutError(str(error)) from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ConnectError(str(error)) from error

    def _open(self, context: ssl.SSLContext | None, watch: Callable[[socket.socket], None]) -> None:
        if self._unix_socket is not None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._unix_socket)
        else:
            self.connect()
        watch(self.sock)
        if context is None:
            return
        if self._proxy is not None:
            self._open_tunnel(self._proxy)
        self.sock = secure = context.wrap_socket(
            self.sock, server_hostname=self._server.host, do_handshake_on_connect=False
        )
        watch(secure)
        secure.do_handshake()

    def _open_tunnel(self, proxy: Address) -> None:
        """Let the proxy connect to the server."""
        to = self._server.with_port
        lines = [f"CONNECT {to} HTTP/1.1", f"Host: {to}"]
        lines += [f"{name}: {value}" for name, value in _credentials(proxy).items()]
        self.sock.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii"))
        answer = Answer(self.sock, method="CONNECT")
        try:
            answer.begin()
            if not 200 <= answer.status < 300:
                raise ProxyError(f"{answer.status} {answer.reason}")
        finally:
            answer.close()


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Translate the errors of the standard library."""
    try:
        yield
    except HttpError:
        raise
    except TimeoutError as error:
        raise TimedOutError(str(error)) from error
    except http.client.RemoteDisconnected as error:
        raise RemoteProtocolError("Server disconnected without sending a response.") from error
    except OSError as error:
        raise ReadError(str(error)) from error
    except http.client.IncompleteRead as error:
        raise RemoteProtocolError("the answer is not complete") from error
    except http.client.HTTPException as error:
        raise RemoteProtocolError(f"the answer is not HTTP ({type(error).__name__})") from error
    except ValueError:  # of http.client, whose text has the header
        raise HeaderError("a header has invalid characters") from None


def _watch_nothing(_connection: socket.socket) -> None:
    """Do nothing: the request has no deadline."""


def _proxy(url: str) -> Address:
    try:
        proxy = parse(url)
    except ValueError:
        proxy = None
    if proxy is not None and proxy.scheme.startswith("socks"):
        raise ProxyError(
            "the environment sets a SOCKS proxy, which the plugins cannot use: "
            "set an HTTP proxy, or exempt the server in NO_PROXY"
        )
    if proxy is not None and proxy.scheme == "https":
        raise ProxyError("the environment sets a proxy with https://, which the plugins cannot use")
    if proxy is None or proxy.scheme != "http":
        raise ProxyError("the environment sets a proxy with an invalid URL")
    return proxy


def _credentials(proxy: Address) -> dict[str, str]:
    if not proxy.username:
        return {}
    return {"Proxy-Authorization": basic(proxy.username, proxy.password)}


def basic(username: str, password: str) -> str:
    """Return the value of a header for basic authentication."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
