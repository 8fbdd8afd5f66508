# SPDX-License-Identifier: Apache-2.0
"""A server that a ready plugin sends to over HTTP: its settings, its client and its requests.

``HttpTarget`` is a part of a plugin's settings, or the base class of one::

    class Pushgateway(HttpTarget, kw_only=True):
        job: str = "lmcache"

    with settings.pushgateway.client() as client:
        answer = settings.pushgateway.ask(client, "PUT", "/metrics/job/x", content=body)

No ``repr``, no error text and no ``Answer`` shows credentials.
"""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING, Annotated, Any, ClassVar
from urllib.parse import unquote, urljoin

import msgspec
from msgspec import Meta

from lmcache_plugin_adapter.kit.settings.quantities import Duration

from . import clock
from .address import Filled, Url, check_url, completed, parse, shown_url
from .answer import Answer, TargetError, read_retry_after
from .client import Client
from .connection import basic
from .deadline import Deadline
from .errors import HttpError
from .secrets import is_header, is_header_text, read_secret

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from .client import Response

ANSWER_BYTES = 65536
"""How much of an answer's body a plugin reads."""

_HIDDEN = "***"
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SECRET_HEADER = re.compile("auth|key|token", re.IGNORECASE)


class HttpTarget(msgspec.Struct, kw_only=True):
    """A server that a plugin sends to over HTTP."""

    path_is_secret: ClassVar[bool] = False
    """Whether the path gives access, as with many webhooks. Messages then leave it out."""
    example: ClassVar[str] = ""
    """A right ``url``, for the message about an address that the server does not know."""

    url: Url
    """Address of the server."""
    headers: dict[str, str] = {}
    """Headers of each request, such as `X-Scope-OrgID` for a tenant."""
    username: Filled | None = None
    """User name for basic authentication."""
    password: str | None = None
    """Password for basic authentication. Better: a file."""
    password_file: Filled | None = None
    """File with the password, read for each request."""
    bearer_token: str | None = None
    """Token for `Authorization: Bearer`. Better: a file."""
    bearer_token_file: Filled | None = None
    """File with the token, read for each request, so that the token can be rotated."""
    ca_file: Filled | None = None
    """Certificates (PEM) that may sign the server's certificate."""
    cert_file: Filled | None = None
    """Certificate (PEM) that the client presents."""
    key_file: Filled | None = None
    """Key of `cert_file`, if that file does not contain it."""
    verify: bool = True
    """`false` accepts any certificate of the server. For tests only."""
    timeout: Annotated[Duration, Meta(gt=0, le=3600)] = 10.0
    """Seconds in which the server must answer a request."""

    def __post_init__(self) -> None:
        """Refuse contradictory credentials; the message names keys, never values."""
        url = check_url("url", self.url)
        basic = self.username is not None or bool(url.username or url.password)
        given = [n for n in ("password", "password_file") if getattr(self, n) is not None]
        tokens = [n for n in ("bearer_token", "bearer_token_file") if getattr(self, n) is not None]
        for names in (given, tokens):
            if len(names) > 1:
                raise ValueError(f"give {names[0]} or {names[1]}, not both")
        if tokens and (basic or given):
            raise ValueError(f"give username and password or {tokens[0]}, not both")
        if given and not basic:
            raise ValueError(f"{given[0]} needs username")
        if not all(is_header(name, value) for name, value in self.headers.items()):
            raise ValueError("headers has characters that no header may have")
        # ``token`` and ``tenant`` are fields of subclasses.
        for name in ("bearer_token", "username", "token", "tenant"):
            if not is_header_text(getattr(self, name, None) or ""):
                raise ValueError(f"{name} has characters that no header may have")
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file")

    def __repr__(self) -> str:
        """Return the address without credentials."""
        return f"{type(self).__name__}({self.shown!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what ``repr`` shows."""
        return [("url", self.shown)]

    @property
    def shown(self) -> str:
        """The address for messages: without user name, password and query."""
        address = parse(self.url)
        if self.path_is_secret and address.path not in ("", "/"):
            return f"{address.origin}/…"
        return shown_url(self.url)

    def at(self, path: str = "") -> str:
        """Return the address of ``path`` (``/api/v2/alerts``, percent-encoded) below ``url``.

        What ``url`` has of the path already is not doubled.
        Without a path, return the configured address with its query. Credentials in the address
        are left out.
        """
        address = parse(self.url)
        if path:
            address = address._replace(path=completed(address.path, path))
        return str(address)

    def client(self, *, credentials: bool = True, proxies: bool = True) -> Client:
        """Return a client with the target's headers, credentials and certificates.

        Args:
            credentials: Whether requests have the target's credentials.
            proxies: Whether to use the proxies of the environment.
        """
        return Client(
            headers=self.headers,
            authorize=self._authorize if credentials else None,
            timeout=self.timeout,
            certificates=self.certificates,
            proxies=proxies,
        )

    def ask(
        self,
        client: Client,
        method: str,
        path: str = "",
        *,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        deadline: Deadline | None = None,
    ) -> Answer:
        """Send one request and return the answer, whatever its status.

        Args:
            client: A client from :meth:`client`.
            method: The method of the request.
            path: The path below ``url``, as for :meth:`at`.
            content: The body of the request.
            headers: More headers.
            timeout: Seconds for the whole request; None: the configured ones.
            deadline: Replaces ``timeout``; another thread may bring it forward.

        Raises:
            HttpError: There was no answer; ``failure`` words the reason.
            TargetError: A file with a secret cannot be read.
        """
        limit = self.timeout if timeout is None else timeout
        taken = bytearray()
        begun = time.time()
        with client.stream(
            method,
            self.at(path),
            headers=headers,
            content=content,
            timeout=limit,
            deadline=deadline or Deadline(limit),
        ) as response:
            clock.check.look(response.headers, begun, time.time(), self.shown)
            try:
                for piece in response.pieces():
                    taken += piece
                    if len(taken) >= ANSWER_BYTES:
                        break
            except HttpError:
                pass  # the status has arrived, and it decides
        raw = bytes(taken[:ANSWER_BYTES])
        sent = [
            value.rpartition(" ")[2]
            for name, value in response.sent.items()
            if _SECRET_HEADER.search(name)
        ]
        hide = self._hider(sent)
        return Answer(
            response.status,
            hide(response.reason),
            hide(raw.decode(errors="replace")),
            raw,
            read_retry_after(response.headers.get("Retry-After")),
            hide,
            self._advice(response, path),
        )

    def _advice(self, response: Response, path: str) -> str:
        """Return what to do about an answer that blames the address; empty for all others."""
        status, location = response.status, response.headers.get("Location", "")
        if location and status in _REDIRECTS:
            if self.path_is_secret:
                return "set url to the address that the server redirects to"
            with contextlib.suppress(ValueError):
                location = shown_url(urljoin(response.url, location))
            return f"the server redirects to {location}: set url accordingly"
        if status not in (404, 405):
            return ""
        asked = "" if self.path_is_secret else f"requested was {shown_url(self.at(path))}; "
        right = f"should look like '{self.example}'" if self.example else "is the whole address"
        return f"{asked}url {right}"

    def certificates(self) -> ssl.SSLContext:
        """Return the context of connections with TLS.

        Raises:
            TargetError: A file of certificates cannot be used.
        """
        from .certificates import CertificateError, client_context  # late: ssl needs 2 MB

        try:
            return client_context(
                ca_file=self.ca_file,
                cert_file=self.cert_file,
                key_file=self.key_file,
                verify=self.verify,
            )
        except CertificateError as error:
            raise TargetError(str(error)) from None

    def _authorize(self) -> dict[str, str]:
        """Return the headers with credentials; read their files again."""
        token = self.bearer_token
        if self.bearer_token_file is not None:
            token = read_secret("bearer_token_file", self.bearer_token_file)
        if token is not None:
            return {"Authorization": f"Bearer {token}"}
        address = parse(self.url)
        username = self.username if self.username is not None else address.username
        if not username:
            return {}
        password = self.password if self.password is not None else address.password
        if self.password_file is not None:
            password = read_secret("password_file", self.password_file)
        return {"Authorization": basic(username, password)}

    def _hider(self, sent: list[str]) -> Callable[[str], str]:
        """Return a function that removes credentials which a server may have echoed."""
        url = parse(self.url)
        secrets = {*sent, *self.headers.values(), *url.parameters}
        secrets |= {url.password, self.password or "", self.bearer_token or ""}
        if self.path_is_secret:
            secrets |= {url.path, unquote(url.path)}
        known = sorted((s for s in secrets if s and len(s) > 3), key=len, reverse=True)

        def hide(text: str) -> str:
            for secret in known:
                text = text.replace(secret, _HIDDEN)
            return text

        return hide
