# SPDX-License-Identifier: Apache-2.0
"""Addresses of servers: the type for settings, the check, and the form for messages."""

from __future__ import annotations

import ipaddress
from typing import Annotated, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

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


_PORTS = {"http": 80, "https": 443}
_PATH = "/%:@!$&'()*+,;="
"""Characters that a path may hold besides letters and digits."""


class Address(NamedTuple):
    """A parsed URL."""

    scheme: str
    username: str
    password: str
    host: str
    """The host in lower case, an IPv6 address without brackets."""
    port: int | None
    """The port, unless it is the scheme's own."""
    path: str
    """The path, percent-encoded; may be empty."""
    query: str
    """The query, percent-encoded."""

    @property
    def effective_port(self) -> int:
        """The port of the connection."""
        return self.port or _PORTS.get(self.scheme, 80)

    @property
    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def authority(self) -> str:
        """The host, with the port if it is not the scheme's own."""
        return self._bracketed if self.port is None else f"{self._bracketed}:{self.port}"

    @property
    def with_port(self) -> str:
        """The host and the port."""
        return f"{self._bracketed}:{self.effective_port}"

    @property
    def origin(self) -> str:
        """The server: scheme, host and port."""
        return f"{self.scheme}://{self.authority}"

    @property
    def target(self) -> str:
        """The path and query for the request line."""
        return (self.path or "/") + (f"?{self.query}" if self.query else "")

    @property
    def parameters(self) -> list[str]:
        """The values in the query."""
        return [value for _, value in parse_qsl(self.query)]

    def __repr__(self) -> str:
        """Return what ``str`` returns: no text shows a password."""
        return f"Address({self})"

    def __str__(self) -> str:
        """Return the address without user name and password."""
        return f"{self.origin}{self.target if self.path or self.query else ''}"


def parse(url: str) -> Address:
    """Return an address, parsed.

    Raises:
        ValueError: The address is invalid. The text may hold a password.
    """
    parts = urlsplit(url)
    after = parts.netloc.rpartition("@")[2].rpartition("]")[2]
    text = after.partition(":")[2]
    if text and not (text.isascii() and text.isdigit()):
        raise ValueError("the port is no number")
    port = int(text) if text else None
    host = parts.hostname or ""
    if not host:
        raise ValueError("there is no host")
    if not host.isprintable() or " " in host:
        raise ValueError("the host has characters that no host may have")
    if not host.isascii():
        host = host.encode("idna").decode()
    return Address(
        parts.scheme,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        host,
        None if port == _PORTS.get(parts.scheme) else port,
        quote(parts.path, safe=_PATH),
        quote(parts.query, safe=_PATH + "?"),
    )


def check_url(key: str, url: str) -> Address:
    """Return the address that setting ``key`` holds, parsed.

    Raises:
        ValueError: The address is invalid. The text leaves it out, because it may hold a password.
    """
    try:
        found = parse(url)
    except ValueError:
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
    return str(parse(url)._replace(query=""))


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
