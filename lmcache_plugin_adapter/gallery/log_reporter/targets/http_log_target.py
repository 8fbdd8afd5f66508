# SPDX-License-Identifier: Apache-2.0
"""The base of Loki and OTLP: a batch is one HTTP request."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.gallery.http_client.answer import Answer, TargetError, failure
from lmcache_plugin_adapter.gallery.http_client.errors import HttpError

from .target import LogTarget, RecordsRefusedError, TargetUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lmcache_plugin_adapter.gallery.http_client.client import Client
    from lmcache_plugin_adapter.gallery.http_client.target import HttpTarget

_TOO_LARGE = 413


class HttpLogTarget(LogTarget):
    """A server that receives batches over HTTP.

    Args:
        kind: The kind of server, for messages.
        settings: The server.
        path: The path that completes its URL.
        compress: Whether to use gzip.
        headers: The headers of each request.
    """

    def __init__(
        self,
        kind: str,
        settings: HttpTarget,
        path: str,
        *,
        compress: bool,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(f"{kind} at {settings.shown}", settings.timeout)
        self._settings = settings
        self._path = path
        self._compress = compress
        self._headers = dict(headers)
        self._client: Client | None = None

    def post(self, body: bytes, timeout: float) -> Answer:
        """Send one batch and return the answer.

        Raises:
            TargetUnavailableError: A retry may succeed.
            RecordsRefusedError: A retry is useless.
        """
        headers = self._headers
        if self._compress:
            headers = {**headers, "Content-Encoding": "gzip"}
            body = gzip.compress(body, 3)
        client = self._client
        try:
            if client is None:
                client = self._client = self._settings.client()
            answer = self._settings.ask(
                client, "POST", self._path, content=body, headers=headers, timeout=timeout
            )
        except (HttpError, TargetError) as error:
            if client is self._client:  # not abandoned meanwhile
                self.close()
            raise TargetUnavailableError(failure(error)) from None
        if answer.accepted:
            return answer
        if answer.refuses_content:
            raise self.refusal(answer, too_large=answer.status == _TOO_LARGE)
        raise TargetUnavailableError(str(answer), answer.retry_after)

    def refusal(self, answer: Answer, *, too_large: bool) -> RecordsRefusedError:
        """Return the error for an answer that refuses records for good."""
        return RecordsRefusedError(str(answer), too_large=too_large)

    def close(self) -> None:
        """Close the connection; the next batch opens a new one."""
        if self._client is not None:
            self._client.close()
            self._client = None
