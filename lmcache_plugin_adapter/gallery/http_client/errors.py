# SPDX-License-Identifier: Apache-2.0
"""Why a request got no answer."""

from __future__ import annotations


class HttpError(Exception):
    """A request got no answer."""


class TimedOutError(HttpError):
    """The answer did not arrive in time."""


class ConnectTimedOutError(TimedOutError):
    """There was no connection in time."""


class ConnectError(HttpError):
    """The server cannot be reached, or its certificate is not accepted."""


class ProxyError(HttpError):
    """The environment's proxy cannot be used."""


class HeaderError(HttpError):
    """A header has characters that no header may have. The text leaves them out."""


class ReadError(HttpError):
    """The connection broke."""


class RemoteProtocolError(HttpError):
    """The server's answer is not HTTP, or not complete."""
