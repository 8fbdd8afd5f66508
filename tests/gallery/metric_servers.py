# SPDX-License-Identifier: Apache-2.0
"""Prometheus, VictoriaMetrics and a Pushgateway for the metric reporter's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from servers import Server, debian_binary

LOOKS = "lmcache:looks_total"


def pushgateway(data: Path) -> Server:
    """A Pushgateway."""
    program = debian_binary("prometheus-pushgateway")
    return Server([program, "--web.listen-address=127.0.0.1:{port}"], data)


class Prometheus(Server):
    """It listens before it can answer: its data are read first."""

    def _up(self) -> bool:
        if not super()._up():
            return False
        answer = httpx.get(f"{self.url}/-/ready", timeout=30, trust_env=False)
        return answer.status_code == 200


def prometheus(data: Path) -> Server:
    """A Prometheus that takes remote write and scrapes nothing."""
    return Prometheus(
        [
            debian_binary("prometheus"),
            "--config.file=/dev/null",
            "--storage.tsdb.path={data}/tsdb",
            "--web.listen-address=127.0.0.1:{port}",
            "--web.enable-remote-write-receiver",
        ],
        data,
    )


def victoria(data: Path, *options: str) -> Server:
    """A VictoriaMetrics that shows at once what it has taken."""
    return Server(
        [
            debian_binary("victoria-metrics"),
            "-storageDataPath={data}/vm",
            "-httpListenAddr=127.0.0.1:{port}",
            "-search.latencyOffset=0s",
            *options,
        ],
        data,
    )


def victoria_without_doubles(data: Path) -> Server:
    """A VictoriaMetrics that keeps one of several samples with the same time."""
    return victoria(data, "-dedup.minScrapeInterval=1ms")


def get(url: str, **parameters: str) -> Any:
    """Return the JSON at an address."""
    return httpx.get(url, params=parameters, timeout=30, trust_env=False).json()


def kept(server: Server, name: str = LOOKS) -> list[tuple[float, float]]:
    """Return the raw samples of a series, as time and value; [] if it is not there.

    Both servers speak Prometheus' API. VictoriaMetrics shows the marks of an end, too.
    """
    found = get(f"{server.url}/api/v1/query", query=f'{{__name__="{name}"}}[1h]')
    series = found["data"]["result"]
    assert len(series) <= 1, series
    found = series[0]["values"] if series else []
    return [(float(moment), float(value)) for moment, value in found if value != "NaN"]


def values(server: Server, name: str = LOOKS) -> list[float]:
    """Return the values only."""
    return [value for _, value in kept(server, name)]


def shown(server: Server, name: str = LOOKS) -> list[Any]:
    """Return what a graph shows of a series at this moment."""
    found = get(f"{server.url}/api/v1/query", query=f'{{__name__="{name}"}}')
    return list(found["data"]["result"])


def labels(server: Server, name: str = LOOKS) -> dict[str, str]:
    """Return the labels of a series."""
    (series,) = get(f"{server.url}/api/v1/query", query=f'{{__name__="{name}"}}[1h]')["data"][
        "result"
    ]
    return dict(series["metric"])
