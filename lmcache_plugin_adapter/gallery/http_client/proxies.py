# SPDX-License-Identifier: Apache-2.0
"""Send each request through the proxy that the environment sets for its address, or directly.

Reads ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` as curl and Go do; httpx
ignores networks in ``NO_PROXY`` and fails on IPv6 there. Loopback never needs a proxy.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies_environment

import httpx

from .address import ip_address, is_this_host_only
from .certificates import trusts_nobody

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

_PORT = re.compile(r"(\[[^\]]*\]|[^:]*):([0-9]+)")


class EnvironmentProxies(httpx.BaseTransport):
    """A transport that picks the proxy for each request.

    Args:
        certificates: Returns ``verify`` for a connection with TLS. Plain connections load no
            certificates, which take more than a megabyte.
        options: More options of each ``httpx.HTTPTransport``.
    """

    def __init__(self, certificates: Callable[[], ssl.SSLContext | bool], **options: Any) -> None:
        self._certificates = certificates
        self._options = options
        self._transports: dict[tuple[str | None, bool], httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request.

        Raises:
            httpx.ProxyError: The environment's proxy cannot be used; the text has no credentials.
        """
        proxy = proxy_for(request.url, getproxies_environment())
        key = proxy, request.url.scheme == "https" or (proxy or "").startswith("https:")
        if key not in self._transports:
            self._transports[key] = self._open(*key)
        return self._transports[key].handle_request(request)

    def close(self) -> None:
        """Close all connections."""
        for transport in self._transports.values():
            transport.close()

    def _open(self, proxy: str | None, secure: bool) -> httpx.HTTPTransport:
        verify = self._certificates() if secure else trusts_nobody()
        try:
            return httpx.HTTPTransport(proxy=proxy, verify=verify, **self._options)
        except ImportError:
            text = "the environment sets a SOCKS proxy, which needs the package 'httpx[socks]'"
            raise httpx.ProxyError(text) from None
        except (ValueError, httpx.InvalidURL):
            if proxy is None:
                raise
            raise httpx.ProxyError("the environment sets a proxy with an invalid URL") from None


def proxy_for(url: httpx.URL, proxies: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy for an address; None: connect directly.

    Args:
        url: The address.
        proxies: As from ``getproxies_environment``: by scheme, ``all`` and ``no``.
    """
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or is_exempt(url, proxies.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def is_exempt(url: httpx.URL, no_proxy: str) -> bool:
    """Tell whether ``NO_PROXY``, or loopback, exempts an address from proxies."""
    host = url.host.lower().rstrip(".")
    if is_this_host_only(host):
        return True
    address = ip_address(host)
    port = str(url.port or (443 if url.scheme == "https" else 80))
    entries = re.split(r"[,\s]+", no_proxy.lower())
    return any(_matches(entry, host, address, port) for entry in entries if entry)


def _matches(
    entry: str, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, port: str
) -> bool:
    if entry == "*":
        return True
    with_port = _PORT.fullmatch(entry)
    if with_port is not None:
        entry, wanted = with_port.groups()
        if wanted != port:
            return False
    entry = entry.strip("[]")
    if address is not None:
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
        return address in network
    domain = entry.lstrip("*").strip(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))
