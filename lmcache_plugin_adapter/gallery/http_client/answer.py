# SPDX-License-Identifier: Apache-2.0
"""The result of a request: the server's answer, or the reason why there is none."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Callable

import msgspec

from .errors import ConnectTimedOutError, HeaderError, TimedOutError

SHOWN_CHARACTERS = 200
"""How much of an answer's body a message shows."""

_CONTENT = frozenset({400, 413, 422})

_ERRNO = re.compile(r"\[Errno -?\d+\] ")


class TargetError(Exception):
    """A request could not be built: a file with a secret or a certificate is unusable."""


class Answer(msgspec.Struct, frozen=True):
    """The answer of a server."""

    status: int
    reason: str
    body: str
    """The body as text, without the target's own credentials."""
    raw: bytes = b""
    """The body as received, cut like ``body``."""
    retry_after: float | None = None
    """Seconds to wait before the next request, if the server asked for a pause."""
    hide: Callable[[str], str] = str
    """Removes the target's own credentials from a text."""
    advice: str = ""
    """Advice on the answer, if there is any."""

    @property
    def accepted(self) -> bool:
        """Whether the request succeeded (2xx)."""
        return 200 <= self.status < 300

    @property
    def refuses_content(self) -> bool:
        """Whether the answer blames the content (400, 413, 422): a retry cannot change it.

        An operator can fix any other cause at the server, at its address or in the credentials,
        while a buffer keeps the content.
        """
        return self.status in _CONTENT

    def __repr__(self) -> str:
        """Return the answer without ``raw``, which may hold credentials."""
        return f"Answer({self})"

    def __str__(self) -> str:
        """Return one line for a message: ``HTTP 400 Bad Request: out of order sample``."""
        return self._with_status(self.quote(self.body))

    def ending(self) -> str:
        """Return the same line with the end of the body, where some servers put the reason."""
        line = self._one_line(self.body)
        return self._with_status(line if len(line) <= SHOWN_CHARACTERS else _end_of(line))

    def _with_status(self, line: str) -> str:
        head = f"HTTP {self.status} {self.reason}".rstrip()
        text = f"{head}: {line}" if line else head
        return f"{text} ({self.hide(self.advice)})" if self.advice else text

    def quote(self, text: str) -> str:
        """Return text from ``raw`` for a message.

        The result is one line, cut, without control characters and the target's own credentials.
        """
        line = self._one_line(text)
        return line if len(line) <= SHOWN_CHARACTERS else line[:SHOWN_CHARACTERS] + "…"

    def _one_line(self, text: str) -> str:
        line = " ".join(self.hide(text).split())
        return "".join(c if c.isprintable() else "?" for c in line)


def _end_of(line: str) -> str:
    return "…" + line[-SHOWN_CHARACTERS:]


def failure(error: Exception) -> str:
    """Return one line on why a request got no answer, without address and credentials."""
    if isinstance(error, (TargetError, HeaderError)):
        return str(error)
    if isinstance(error, ConnectTimedOutError):
        return "no connection in time"
    if isinstance(error, TimedOutError):
        return "no answer in time"
    text = _ERRNO.sub("", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def read_retry_after(value: str | None, now: float | None = None) -> float | None:
    """Return the seconds in a ``Retry-After`` header (a number or a date), or None.

    Args:
        value: The header, as received.
        now: Seconds since 1970; None: the current time.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = email.utils.parsedate_to_datetime(value)
    except (TypeError, ValueError):
        return None
    return max(0.0, moment.timestamp() - (time.time() if now is None else now))
