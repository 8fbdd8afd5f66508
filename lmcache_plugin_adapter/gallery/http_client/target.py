"""A server that a ready plugin sends to over HTTP: address, credentials, certificates, answers.

``HttpTarget`` is meant to be a part of a plugin's settings, or the base of one::

    class Pushgateway(HttpTarget, kw_only=True):
        job: str = "lmcache"

    with settings.pushgateway.client() as client:
        answer = settings.pushgateway.ask(client, "PUT", "/metrics/job/x", content=body)

Credentials are in no ``repr``, in no text of an error and in no ``Answer``.
"""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import httpx
import msgspec
from msgspec import Meta

from .deadline import Deadline
from .retry_after import read_retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

ANSWER_BYTES = 65536
"""As much of an answer's body is read; whatever follows is of no use to a plugin."""

SHOWN_CHARACTERS = 200
"""As much of an answer's body stands in a message."""

_TRANSIENT = frozenset({408, 425, 429})
"""Besides 5xx: answers that ask to come again. All others will be the same the next time."""

_HIDDEN = "***"
_SECRET_HEADER = re.compile("auth|key|token", re.IGNORECASE)
_ERRNO = re.compile(r"\[Errno -?\d+\] ")

Filled = Annotated[str, Meta(min_length=1)]
"""Text that is not empty."""


class TargetError(Exception):
    """A request could not be built: a file with a secret or certificate cannot be used."""


class Answer(msgspec.Struct, frozen=True):
    """What a server answered."""

    status: int
    reason: str
    body: str
    """As text, without the target's own credentials."""
    raw: bytes = b""
    """As it came. At most ``ANSWER_BYTES``, as ``body``."""
    retry_after: float | None = None
    """Seconds for which the server wants to be left alone, if it said so."""
    hide: Callable[[str], str] = str
    """Takes the target's own credentials out of a text."""

    @property
    def accepted(self) -> bool:
        """Whether the request did what it was to do (2xx)."""
        return 200 <= self.status < 300

    @property
    def transient(self) -> bool:
        """Whether the same request may do better later (408, 425, 429, 5xx)."""
        return self.status in _TRANSIENT or self.status >= 500

    def __repr__(self) -> str:
        """Return what may be shown: ``raw`` may not."""
        return f"Answer({self})"

    def __str__(self) -> str:
        """Return one line for a message: ``HTTP 400 Bad Request: out of order sample``."""
        line = self.quote(self.body)
        head = f"HTTP {self.status} {self.reason}".rstrip()
        return f"{head}: {line}" if line else head

    def quote(self, text: str) -> str:
        """Return a text that came in ``raw`` as a message may have it.

        That is one line, cut, without control characters and the target's own credentials.
        """
        line = " ".join(self.hide(text).split())
        line = "".join(c if c.isprintable() else "?" for c in line)
        return line if len(line) <= SHOWN_CHARACTERS else line[:SHOWN_CHARACTERS] + "…"


class HttpTarget(msgspec.Struct, kw_only=True):
    """A server that is spoken to over HTTP."""

    path_is_secret: ClassVar[bool] = False
    """Whether who knows the path may use it, as with many hooks: then it is not shown."""

    url: Annotated[
        str,
        Meta(
            pattern=r"^https?://[^/?#\s]+\S*$",
            description="Address of the server.",
            extra={"accepted": "an address with http:// or https://"},
        ),
    ]
    headers: Annotated[
        dict[str, str],
        Meta(description="Headers of each request, such as `X-Scope-OrgID` for a tenant."),
    ] = {}
    username: Annotated[Filled | None, Meta(description="Name for basic authentication.")] = None
    password: Annotated[
        str | None, Meta(description="Password for basic authentication. Better: a file.")
    ] = None
    password_file: Annotated[
        Filled | None,
        Meta(description="File with the password, read for each request."),
    ] = None
    bearer_token: Annotated[
        str | None, Meta(description="Token for `Authorization: Bearer`. Better: a file.")
    ] = None
    bearer_token_file: Annotated[
        Filled | None,
        Meta(
            description="File with the token, read for each request, so that it may be rotated.",
        ),
    ] = None
    ca_file: Annotated[
        Filled | None,
        Meta(description="Certificates (PEM) that the server's must come from."),
    ] = None
    cert_file: Annotated[
        Filled | None,
        Meta(description="Certificate (PEM) to show to the server."),
    ] = None
    key_file: Annotated[
        Filled | None,
        Meta(description="Key of `cert_file`, where it is not in that file."),
    ] = None
    verify: Annotated[
        bool, Meta(description="`false` accepts any certificate of the server: for trials only.")
    ] = True
    timeout: Annotated[
        float, Meta(gt=0, le=3600, description="Seconds in which a request must be answered.")
    ] = 10.0

    def __post_init__(self) -> None:
        """Refuse credentials that contradict each other; the message names keys, no values."""
        url = check_url("url", self.url)
        basic = self.username is not None or bool(url.userinfo)
        given = [n for n in ("password", "password_file") if getattr(self, n) is not None]
        tokens = [n for n in ("bearer_token", "bearer_token_file") if getattr(self, n) is not None]
        for names in (given, tokens):
            if len(names) > 1:
                raise ValueError(f"give {names[0]} or {names[1]}, not both")
        if tokens and (basic or given):
            raise ValueError(f"give username and password or {tokens[0]}, not both")
        if given and not basic:
            raise ValueError(f"{given[0]} needs username")
        if any(not _sendable(text) for pair in self.headers.items() for text in pair):
            raise ValueError("headers has characters that no header may have")
        # The last two are of targets that are more than this one.
        for name in ("bearer_token", "username", "token", "tenant"):
            if not _sendable(getattr(self, name, None) or ""):
                raise ValueError(f"{name} has characters that no header may have")
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("key_file needs cert_file")

    def __repr__(self) -> str:
        """Return what may be shown: the address without credentials."""
        return f"{type(self).__name__}({self.shown!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """As ``repr``."""
        return [("url", self.shown)]

    @property
    def shown(self) -> str:
        """The address for messages: no name, password or query, which may hold a key."""
        text = shown_url(self.url)
        if self.path_is_secret and httpx.URL(text).path != "/":
            return f"{httpx.URL(text).copy_with(path='/')}…"
        return text

    def at(self, path: str = "") -> str:
        """Return the address of ``path`` (``/api/v2/alerts``, percent-encoded) below ``url``.

        Without a path it is the URL as configured, query included; in any case without the
        credentials that may stand in it.
        """
        url = httpx.URL(self.url).copy_with(userinfo=b"", fragment=None)
        if path:
            raw, _, query = url.raw_path.partition(b"?")
            joined = raw.rstrip(b"/") + path.encode("ascii")
            url = url.copy_with(raw_path=joined + (b"?" + query if query else b""))
        return str(url)

    def client(self, timeout: float | None = None) -> httpx.Client:
        """Return a client with the target's headers, credentials and certificates.

        Args:
            timeout: Seconds instead of the configured ones.

        Raises:
            TargetError: A file of certificates cannot be used.
        """
        return httpx.Client(
            headers={"User-Agent": "lmcache-plugin-adapter", **self.headers},
            auth=_Credentials(self),
            verify=self._certificates(),
            timeout=self.timeout if timeout is None else timeout,
            limits=httpx.Limits(max_connections=4, max_keepalive_connections=1),
        )

    def ask(
        self,
        client: httpx.Client,
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
            client: From ``client``.
            method: The request's.
            path: Below ``url``, as for ``at``.
            content: The request's body.
            headers: More headers.
            timeout: Seconds for the request as a whole; None: the configured ones.
            deadline: Instead of one after ``timeout``; another thread may bring it forward.

        Raises:
            httpx.HTTPError: No answer. ``failure`` words it.
            TargetError: A file with a secret cannot be read.
        """
        limit = self.timeout if timeout is None else timeout
        taken = bytearray()
        with (deadline or Deadline(limit)).stream(
            client,
            method,
            self.at(path),
            content=content,
            headers=headers or {},
            timeout=limit,
        ) as response:
            try:
                for piece in response.iter_bytes():
                    taken += piece
                    if len(taken) >= ANSWER_BYTES:
                        break
            except httpx.HTTPError:
                pass  # the status is known, and that is what counts
            raw = bytes(taken[:ANSWER_BYTES])
            sent = [
                value.rpartition(" ")[2]
                for name, value in response.request.headers.items()
                if _SECRET_HEADER.search(name)
            ]
        hide = self._hider(sent)
        return Answer(
            response.status_code,
            hide(response.reason_phrase),
            hide(raw.decode(errors="replace")),
            raw,
            read_retry_after(response.headers.get("Retry-After")),
            hide,
        )

    def _certificates(self) -> ssl.SSLContext | bool:
        if not self.verify and self.cert_file is None:
            return False
        if self.ca_file is None and self.cert_file is None:
            return True  # httpx's own, or those that SSL_CERT_FILE names
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise TargetError(f"cannot use ca_file {self.ca_file!r}: {error}") from None
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert_file is not None:
            try:
                # A password would be asked for on the terminal, which a plugin has not.
                context.load_cert_chain(self.cert_file, self.key_file, password=lambda: b"")
            except (OSError, ssl.SSLError) as error:
                raise TargetError(f"cannot use cert_file {self.cert_file!r}: {error}") from None
        return context

    def _hider(self, sent: list[str]) -> Callable[[str], str]:
        """Return what hides that which a server may have echoed."""
        url = httpx.URL(self.url)
        secrets = {*sent, *self.headers.values(), *url.params.values()}
        secrets |= {url.password, self.password or "", self.bearer_token or ""}
        if self.path_is_secret:
            secrets.add(url.path)
        known = sorted((s for s in secrets if s and len(s) > 3), key=len, reverse=True)

        def hide(text: str) -> str:
            for secret in known:
                text = text.replace(secret, _HIDDEN)
            return text

        return hide


class _Credentials(httpx.Auth):
    """Add the target's credentials to each request; files are read anew."""

    def __init__(self, target: HttpTarget) -> None:
        self._target = target

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        target = self._target
        token = target.bearer_token
        if target.bearer_token_file is not None:
            token = read_secret("bearer_token_file", target.bearer_token_file)
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token}"
            yield request
            return
        url = httpx.URL(target.url)
        username = target.username if target.username is not None else url.username
        if username:
            password = target.password if target.password is not None else url.password
            if target.password_file is not None:
                password = read_secret("password_file", target.password_file)
            yield from httpx.BasicAuth(username, password).auth_flow(request)
            return
        yield request


def check_url(key: str, url: str) -> httpx.URL:
    """Return an address that setting ``key`` has.

    Raises:
        ValueError: It is none; the text does not have it, since it may hold a password.
    """
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError(f"{key} is no address") from None
    if found.port is not None and not 0 < found.port < 65536:
        raise ValueError(f"{key} has no port that may be")
    return found


def shown_url(url: str) -> str:
    """Return an address for messages: no name, password or query, which may hold a key."""
    return str(httpx.URL(url).copy_with(userinfo=b"", query=None, fragment=None))


def read_secret(key: str, path: str) -> str:
    """Return the secret in the file that setting ``key`` names, without white space around it.

    Raises:
        TargetError: It cannot be read, is empty, or has characters that no header may have.
    """
    try:
        with open(path, "rb") as file:
            secret = file.read(ANSWER_BYTES).decode().strip()
    except OSError as error:
        raise TargetError(f"cannot read {key} {path!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TargetError(f"cannot use {key} {path!r}: not text") from None
    if not secret:
        raise TargetError(f"cannot use {key} {path!r}: it is empty")
    if not _sendable(secret):
        raise TargetError(f"cannot use {key} {path!r}: more than one line, or not ASCII")
    return secret


def _sendable(text: str) -> bool:
    """Tell whether a header may have this, at its ends, too."""
    return text.isascii() and text.isprintable() and text == text.strip()


def failure(error: Exception) -> str:
    """Return one line on why a request had no answer, without address and credentials."""
    if isinstance(error, TargetError):
        return str(error)
    if isinstance(error, httpx.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx.LocalProtocolError):
        return "a header has characters that none may have"  # the error's text has the header
    text = _ERRNO.sub("", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
