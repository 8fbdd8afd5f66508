# SPDX-License-Identifier: Apache-2.0
"""A small HTTP client on the standard library.

It needs 5 MB less memory than httpx, and a node runs many idle plugins.
"""

from __future__ import annotations

import contextlib
import select
import time
from typing import TYPE_CHECKING

from .address import Address, parse
from .connection import Connection, translated
from .errors import HeaderError, RemoteProtocolError, TimedOutError
from .proxies import environment_proxies, proxy_for
from .secrets import is_header

if TYPE_CHECKING:
    import http.client
    import ssl
    from collections.abc import Callable, Iterator, Mapping

    from .deadline import Deadline

_KEEP_SECONDS = 5.0
"""How long an idle connection is reused; many servers close it soon after."""

_PIECE = 65536
_DEFAULT_HEADERS = {"User-Agent": "lmcache-plugin-adapter", "Accept": "*/*"}


class Response:
    """An answer whose body has not been read yet.

    Attributes:
        status: The status code.
        reason: The status line's text.
        headers: The headers, with names in title case (``Retry-After``).
        url: The address of the request.
        sent: The headers of the request.
    """

    def __init__(
        self,
        answer: http.client.HTTPResponse,
        url: str,
        sent: Mapping[str, str],
        deadline: Deadline | None,
    ) -> None:
        self._answer = answer
        self._deadline = deadline
        self.status = answer.status
        self.reason = answer.reason
        self.headers = {name.title(): value for name, value in answer.getheaders()}
        self.url = url
        self.sent = sent
        self.complete = False
        """Whether the whole body was read."""

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            HttpError: The body does not arrive, or not all of it.
        """
        left = self._answer.length
        with translated():
            while left is None or left > 0:
                piece = self._answer.read1(_PIECE if left is None else min(left, _PIECE))
                if not piece:
                    break
                yield piece
                if left is not None:
                    left -= len(piece)
        if left:
            raise RemoteProtocolError(f"the answer ended {left} bytes early")
        if left is None and self._deadline is not None and self._deadline.passed:
            raise TimedOutError("broken off at the deadline")  # the end may be that of the shutdown
        self.complete = True


class Client:
    """Send requests, one at a time; keep one connection for the next request.

    Args:
        headers: Headers of each request.
        authorize: Returns the headers with credentials; called for each request.
        timeout: Seconds for connecting, and for each wait for bytes.
        certificates: Returns the context of connections with TLS; called when the first opens.
        proxies: Whether to use the proxies of the environment.
        unix_socket: The unix socket of the server, if it has one.
    """

    def __init__(
        self,
        *,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        authorize: Callable[[], Mapping[str, str]] | None = None,
        certificates: Callable[[], ssl.SSLContext] | None = None,
        proxies: bool = False,
        unix_socket: str | None = None,
    ) -> None:
        self._headers = _replaced(_DEFAULT_HEADERS, headers or {})
        self._authorize = authorize
        self._timeout = timeout
        self._certificates = certificates
        self._context: ssl.SSLContext | None = None
        self._proxies = proxies
        self._unix_socket = unix_socket
        self._kept: Connection | None = None
        self._kept_for: tuple[object, ...] = ()
        self._kept_since = 0.0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the kept connection."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        timeout: float | None = None,
        deadline: Deadline | None = None,
    ) -> Iterator[Response]:
        """Send a request and yield the answer as soon as its headers have arrived.

        Redirects are not followed.

        Args:
            method: The method.
            url: The address, without credentials.
            headers: More headers.
            content: The body.
            timeout: Replaces the client's.
            deadline: Limits the whole request, which ``timeout`` does not.

        Raises:
            HttpError: There is no answer.
        """
        address = parse(url)
        sent = self._merged(headers or {})
        timeout = self._timeout if timeout is None else timeout
        proxy = proxy_for(address, environment_proxies()) if self._proxies else None
        connection = self._connection(address, proxy)
        keep = sent.get("Connection") != "close"  # some servers close without a word
        reusable = False
        try:
            with contextlib.nullcontext() if deadline is None else deadline.enforced():
                connection.prepare(timeout, self._tls, deadline)
                target = connection.request_target(address, sent)
                with translated():
                    # A server that refuses a long body may answer before it has read the body.
                    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                        connection.request(method, target, body=content or None, headers=sent)
                    answer = connection.getresponse()
                with answer:
                    response = Response(answer, url, sent, deadline)
                    yield response
                    reusable = keep and response.complete and not answer.will_close
        finally:
            if reusable:
                self._kept, self._kept_for = connection, (address.origin, proxy)
                self._kept_since = time.monotonic()
            else:
                connection.close()

    def _merged(self, headers: Mapping[str, str]) -> dict[str, str]:
        sent = _replaced(self._headers, headers)
        if self._authorize is not None:
            sent = _replaced(sent, self._authorize())
        if not all(is_header(name, value) for name, value in sent.items()):
            raise HeaderError("a header has invalid characters")
        return sent

    def _connection(self, address: Address, proxy: str | None) -> Connection:
        kept, self._kept = self._kept, None
        if kept is not None:
            if (
                self._kept_for == (address.origin, proxy)
                and time.monotonic() - self._kept_since < _KEEP_SECONDS
                and not _is_readable(kept)
            ):
                return kept
            kept.close()
        return Connection(address, proxy, self._unix_socket)

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            from .certificates import client_context  # late: it needs 2 MB

            self._context = (self._certificates or client_context)()
        return self._context


def _replaced(headers: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Return the headers with ``more``, which replace those of the same name in any case."""
    names = {name.lower() for name in more}
    return {**{k: v for k, v in headers.items() if k.lower() not in names}, **more}


def _is_readable(connection: Connection) -> bool:
    """Tell whether the server has closed an idle connection, or sent what nobody requested."""
    poll = select.poll()
    poll.register(connection.sock, select.POLLIN)
    return bool(poll.poll(0))
