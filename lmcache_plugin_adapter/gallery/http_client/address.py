"""Addresses of servers: the type for settings, the check, and the form for messages."""

from __future__ import annotations

from typing import Annotated

import httpx
import msgspec
from msgspec import Meta

Filled = Annotated[str, Meta(min_length=1)]
"""Text that is not empty."""

Url = Annotated[
    str,
    Meta(
        pattern=r"^https?://[^/?#\s]+\S*$",
        extra={"accepted": "an address with http:// or https://"},
    ),
]


def check_url(key: str, url: str) -> httpx.URL:
    """Return the address that setting ``key`` holds, parsed.

    Raises:
        ValueError: The address is invalid. The text leaves it out, because it may hold a password.
    """
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL:
        raise ValueError(f"{key} is no address") from None
    if found.port is not None and not 0 < found.port < 65536:
        raise ValueError(f"{key} has an invalid port")
    return found


def check_urls(settings: msgspec.Struct, *keys: str) -> None:
    """Check the addresses under ``keys``; None is accepted.

    Raises:
        ValueError: As from :func:`check_url`.
    """
    for key in keys:
        url = getattr(settings, key)
        if url is not None:
            check_url(key, url)


def shown_url(url: str) -> str:
    """Return an address for messages: without user name, password and query."""
    return str(httpx.URL(url).copy_with(userinfo=b"", query=None, fragment=None))
