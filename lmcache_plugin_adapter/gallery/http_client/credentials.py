"""Credentials of requests: user name and password, or a token, inline or from a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import httpx

from .answer import TargetError

if TYPE_CHECKING:
    from collections.abc import Generator

_FILE_BYTES = 65536


class Holder(Protocol):
    """Settings that hold credentials."""

    url: str
    username: str | None
    password: str | None
    password_file: str | None
    bearer_token: str | None
    bearer_token_file: str | None


class Credentials(httpx.Auth):
    """Add credentials to each request; read their files anew each time.

    Args:
        holder: The settings that hold the credentials.
    """

    def __init__(self, holder: Holder) -> None:
        self._holder = holder

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Yield the request with its credentials."""
        holder = self._holder
        token = holder.bearer_token
        if holder.bearer_token_file is not None:
            token = read_secret("bearer_token_file", holder.bearer_token_file)
        if token is not None:
            request.headers["Authorization"] = f"Bearer {token}"
            yield request
            return
        url = httpx.URL(holder.url)
        username = holder.username if holder.username is not None else url.username
        if username:
            password = holder.password if holder.password is not None else url.password
            if holder.password_file is not None:
                password = read_secret("password_file", holder.password_file)
            yield from httpx.BasicAuth(username, password).auth_flow(request)
            return
        yield request


def read_secret(key: str, path: str) -> str:
    """Return the secret in the file that setting ``key`` names, without surrounding white space.

    Raises:
        TargetError: The file is unreadable or empty, or a header must not hold its content.
    """
    try:
        with open(path, "rb") as file:
            secret = file.read(_FILE_BYTES).decode().strip()
    except OSError as error:
        raise TargetError(f"cannot read {key} {path!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise TargetError(f"cannot use {key} {path!r}: not text") from None
    if not secret:
        raise TargetError(f"cannot use {key} {path!r}: it is empty")
    if not is_header_text(secret):
        raise TargetError(f"cannot use {key} {path!r}: more than one line, or not ASCII")
    return secret


def is_header_text(text: str) -> bool:
    """Tell whether a header may hold this text, without loss at its ends."""
    return text.isascii() and text.isprintable() and text == text.strip()
