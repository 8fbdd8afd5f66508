# SPDX-License-Identifier: Apache-2.0
"""Addresses of servers: the type for settings, the check, and the form for messages."""

from __future__ import annotations

import ipaddress
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


def completed(path: str, end: str) -> str:
    """Return the path of a configured address, completed by a protocol's path.

    A part of ``end`` that the address has already is not doubled: ``/loki`` and ``/loki/api/push``
    make ``/loki/api/push``.
    """
    have = path.rstrip("/").split("/")[1:]
    more = end.removeprefix("/").split("/")
    shared = min(len(have), len(more))
    while shared and have[-shared:] != more[:shared]:
        shared -= 1
    return "/" + "/".join([*have, *more[shared:]])


def shown_url(url: str) -> str:
    """Return an address for messages: without user name, password and query."""
    return str(httpx.URL(url).copy_with(userinfo=b"", query=None, fragment=None))


def ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return a host as an address (IPv4 in IPv6 as IPv4); None: it is a name."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_this_host_only(host: str) -> bool:
    """Tell whether a host is ``localhost``, a loopback address, or an unspecified one."""
    address = ip_address(host)
    if address is not None:
        return address.is_loopback or address.is_unspecified
    name = host.lower().rstrip(".")
    names = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
    return name in names or name.endswith(".localhost")
