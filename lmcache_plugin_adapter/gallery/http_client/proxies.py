# SPDX-License-Identifier: Apache-2.0
"""Send each request through the proxy that the environment sets for its address, or directly.

Reads ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY`` and ``NO_PROXY`` as curl and Go do, with
networks and IPv6 in ``NO_PROXY``. Loopback never needs a proxy.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING

from .address import ip_address, is_this_host_only

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .address import Address

_PORT = re.compile(r"(\[[^\]]*\]|[^:]*):([0-9]+)")


def environment_proxies() -> dict[str, str]:
    """Return the proxies that the environment sets: by scheme, ``all`` and ``no``."""
    found = {}
    for name in ("http", "https", "all", "no"):
        variable = f"{name}_proxy"
        found[name] = os.environ.get(variable, os.environ.get(variable.upper(), ""))
    return found


def proxy_for(url: Address, proxies: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy for an address; None: connect directly.

    Args:
        url: The address.
        proxies: As from :func:`environment_proxies`.
    """
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or is_exempt(url, proxies.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def is_exempt(url: Address, no_proxy: str) -> bool:
    """Tell whether ``NO_PROXY``, or loopback, exempts an address from proxies."""
    host = url.host.lower().rstrip(".")
    if is_this_host_only(host):
        return True
    address = ip_address(host)
    port = str(url.effective_port)
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
