# SPDX-License-Identifier: Apache-2.0
"""The proxies of the environment are used as curl and Go use them, and break no target."""

from __future__ import annotations

import msgspec
import pytest
from metric_stubs import Gate

from lmcache_plugin_adapter.gallery.http_client.address import parse
from lmcache_plugin_adapter.gallery.http_client.answer import failure
from lmcache_plugin_adapter.gallery.http_client.errors import ProxyError
from lmcache_plugin_adapter.gallery.http_client.proxies import proxy_for
from lmcache_plugin_adapter.gallery.http_client.target import HttpTarget

PROXY = "http://proxy.example:3128"
LIST = "::1,fe80::/10,[2001:db8::5]:8443,10.0.0.0/8, 192.0.2.7 .svc.local,*.corp,intra:8080,a.b"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin each test without the variables of this machine."""
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("http://10.1.2.3:9090", True),
        ("http://11.1.2.3:9090", False),
        ("http://192.0.2.7", True),
        ("http://192.0.2.70", False),
        ("http://[fe80::1]:80", True),
        ("http://[2001:db8::5]:8443", True),
        ("http://[2001:db8::5]:8444", False),
        ("http://[::ffff:10.0.0.9]", True),
        ("http://loki.svc.local:3100", True),
        ("http://svc.local", True),
        ("http://notsvc.local", False),
        ("http://x.corp", True),
        ("http://A.B:1", True),
        ("http://x.a.b.", True),
        ("http://xa.b", False),
        ("http://intra:8080", True),
        ("http://intra:8081", False),
        ("http://127.0.0.1:8500", True),
        ("http://127.9.9.9", True),
        ("http://localhost:8500", True),
        ("http://[::1]:8500", True),
        ("http://0.0.0.0:8500", True),
    ],
)
def test_no_proxy_is_read_as_curl_and_go_read_it(url: str, direct: bool) -> None:
    """Networks, IPv6, ports and suffixes; loopback is always exempt."""
    found = proxy_for(parse(url), {"http": PROXY, "no": LIST})
    assert found == (None if direct else PROXY)


def test_each_scheme_has_its_proxy() -> None:
    """ALL_PROXY is for the other schemes; a star exempts every host."""
    proxies = {"http": "proxy:1", "all": "http://proxy:2"}
    assert proxy_for(parse("http://h"), proxies) == "http://proxy:1"
    assert proxy_for(parse("https://h"), proxies) == "http://proxy:2"
    assert proxy_for(parse("http://h"), {**proxies, "no": "x, *"}) is None
    assert proxy_for(parse("https://h"), {}) is None


def ask(url: str) -> int:
    """Send a request as the plugins do; return the status."""
    target = msgspec.convert({"url": url, "timeout": 20}, HttpTarget)
    with target.client() as client:
        return target.ask(client, "POST", "/x", content=b"body").status


@pytest.mark.parametrize("no_proxy", [LIST, "::1", "fd00::/8,169.254.0.0/16", "[::1]:9", ":::"])
@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:9", "socks5://127.0.0.1:9", "::::"])
def test_loopback_is_reached_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, proxy: str | None
) -> None:
    """Neither an address in NO_PROXY nor an unusable proxy breaks a local target."""
    monkeypatch.setenv("NO_PROXY", no_proxy)
    if proxy is not None:
        monkeypatch.setenv("HTTP_PROXY", proxy)
        monkeypatch.setenv("ALL_PROXY", proxy)
    with Gate() as gate:
        assert ask(gate.url) == 200


def test_other_targets_are_asked_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy gets the whole address."""
    with Gate() as gate:
        monkeypatch.setenv("HTTP_PROXY", gate.url)
        monkeypatch.setenv("NO_PROXY", LIST)
        assert ask("http://192.0.2.70:3100") == 200
        assert gate.requests[0].path == "http://192.0.2.70:3100/x"


@pytest.mark.parametrize(
    ("proxy", "text"),
    [
        ("socks5://me:s3cret@proxy:1", "sets a SOCKS proxy"),
        ("ftp://me:s3cret@proxy", "invalid URL"),
    ],
)
def test_an_unusable_proxy_is_a_reason_not_a_crash(
    monkeypatch: pytest.MonkeyPatch, proxy: str, text: str
) -> None:
    """As from an unreachable server, the plugins try again."""
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ProxyError) as error:
        ask("http://192.0.2.70:3100")
    assert text in failure(error.value)
    assert "s3cret" not in failure(error.value)
