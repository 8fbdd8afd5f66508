"""What Loki and OTLP have in common: a batch is one request over HTTP."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import httpx

from lmcache_plugin_adapter.gallery.http_client.answer import Answer, TargetError, failure
from lmcache_plugin_adapter.gallery.log_reporter.delivery import RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lmcache_plugin_adapter.gallery.http_client.target import HttpTarget

_TOO_LARGE = 413
_NEVER = frozenset({400, 422})
"""What is wrong with these lies in the records; all else may be mended at the other end, or in
the credentials, while the files keep the records."""


class Sender:
    """Posts bodies to one server.

    Args:
        target: The server.
        path: Below its URL, where that has no path of its own.
        compress: Whether to use gzip.
        headers: Of each request.
    """

    def __init__(
        self, target: HttpTarget, path: str, *, compress: bool, headers: Mapping[str, str]
    ) -> None:
        self._target = target
        self._path = path if httpx.URL(target.url).path in ("", "/") else ""
        self._compress = compress
        self._headers = dict(headers)
        self._client: httpx.Client | None = None

    def post(self, body: bytes, timeout: float) -> Answer:
        """Send one batch, and return the answer.

        Raises:
            UnavailableError: It was not taken; later it may.
            RefusedError: It will never be taken.
        """
        headers = self._headers
        if self._compress:
            headers = {**headers, "Content-Encoding": "gzip"}
            body = gzip.compress(body, 3)
        client = self._client
        try:
            if client is None:
                client = self._client = self._target.client()
            answer = self._target.ask(
                client, "POST", self._path, content=body, headers=headers, timeout=timeout
            )
        except (httpx.HTTPError, TargetError) as error:
            if client is self._client:  # and not abandoned
                self.close()
            raise UnavailableError(failure(error)) from None
        if answer.accepted:
            return answer
        if answer.status == _TOO_LARGE:
            raise RefusedError(str(answer), too_large=True)
        if answer.status in _NEVER:
            raise RefusedError(str(answer))
        raise UnavailableError(str(answer), answer.retry_after)

    def close(self) -> None:
        """Close the connection; the next batch opens one."""
        if self._client is not None:
            self._client.close()
            self._client = None
