# SPDX-License-Identifier: Apache-2.0
"""All plugins of the gallery beside a real vLLM, with the real servers that they report to."""

from __future__ import annotations

import base64
import json
import os
import signal
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from site_under_test import Site, free_port, wait_for
from vllm_server import Server, serving

sys.path.insert(0, str(Path(__file__).parents[1] / "gallery"))

pytestmark = pytest.mark.timeout(900)

PLUGINS = (
    "pkg:all_metric_reporter",
    "pkg:scheduler_log_reporter",
    "pkg:all_alert_reporter",
    "pkg:scheduler_heartbeat",
)


def ask(url: str, body: object = None) -> Any:
    """Return the JSON that a server answers with."""
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=10) as reply:
        return json.loads(reply.read())


def registered(etcd: Any) -> list[dict[str, Any]]:
    """Return what etcd holds below the heartbeat's prefix."""
    start, end = (base64.b64encode(key).decode() for key in (b"/", b"0"))
    found = ask(f"{etcd.url}/v3/kv/range", {"key": start, "range_end": end}).get("kvs", [])
    return [json.loads(base64.b64decode(one["value"])) for one in found]


def series(victoria: Any, name: str) -> list[dict[str, str]]:
    """Return the labels of the series of a name that VictoriaMetrics shows."""
    found = ask(f"{victoria.url}/api/v1/query?query=%7B__name__%3D%22{name}%22%7D")
    return [one["metric"] for one in found["data"]["result"]]


def configure(site: Site, server_port: int, settings: dict[str, Any]) -> None:
    """Have the gallery's plugins run, and nothing else."""
    site.configure(stop_grace=8, plugins={name: {"settings": s} for name, s in settings.items()})
    path = site.directory / "lmcache.yaml"
    values = json.loads(path.read_text())
    values["runtime_plugin_locations"] = list(PLUGINS)
    values["internal_api_server_enabled"] = True
    values["internal_api_server_host"] = "127.0.0.1"
    values["internal_api_server_port_start"] = server_port
    path.write_text(json.dumps(values))


def test_all_four_report_an_engine_and_its_death(tmp_path: Path, model: Path) -> None:
    """Metrics, log, an alert and the registration arrive; then the engine core is killed, and
    that is told: an alert, its last log line, and no entry any more.
    """  # noqa: D205
    from alerting import RealAlertmanager
    from log_receivers import Rsyslog
    from metric_servers import pushgateway, victoria
    from servers import Server as Helper
    from servers import debian_binary
    from servers import serving as serving_others

    etcd = Helper(
        [
            debian_binary("etcd-server", "etcd"),
            "--data-dir={data}/etcd",
            "--listen-client-urls=http://127.0.0.1:{port}",
            "--advertise-client-urls=http://127.0.0.1:{port}",
            "--listen-peer-urls=http://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            "--initial-cluster=default=http://127.0.0.1:{peer}",
        ],
        tmp_path / "etcd",
        ports=["peer"],
    )
    gateway = pushgateway(tmp_path / "gateway")
    metrics = victoria(tmp_path / "victoria")
    alertmanager = RealAlertmanager(tmp_path / "alertmanager")
    syslog = Rsyslog(tmp_path / "syslog")
    api, site, port = free_port(), Site(tmp_path / "site"), free_port()
    vllm = f"http://127.0.0.1:{port}"
    configure(
        site,
        api,
        {
            "all_metric_reporter": {
                "interval": 1,
                "vllm_metrics_url": f"{vllm}/metrics",
                "pushgateway": {"url": gateway.url},
                "remote_write": {"url": f"{metrics.url}/api/v1/write"},
            },
            "scheduler_log_reporter": {
                "flush_interval": 0.5,
                "start": "beginning",
                "state_directory": str(tmp_path / "places"),
                "syslog": {"host": "127.0.0.1", "port": syslog.port},
            },
            "all_alert_reporter": {
                "alertmanagers": [{"url": alertmanager.url}],
                "rules": [{"name": "EngineIsThere", "measure": "threads", "above": 0}],
                "health": {"metrics_url": f"{vllm}/metrics"},
            },
            "scheduler_heartbeat": {
                "port": port,
                "interval": 1,
                "etcd": {"url": etcd.url, "ttl": 10},
            },
        },
    )
    with (
        serving_others(etcd, gateway, metrics, alertmanager, syslog.server),
        serving(site, model, port=port) as server,
    ):
        server.completion_milliseconds(10)
        _until_all_have_arrived(server, etcd, gateway, metrics, alertmanager, syslog)
        seen = len(syslog.records())
        os.kill(server.engine_core, signal.SIGKILL)
        server.wait()
        wait_for(lambda: "EngineDied" in alertmanager.alerts(), 30, lambda: server.log[-4000:])
        assert alertmanager.alerts()["EngineDied"]["labels"]["role"] == "scheduler"
        wait_for(lambda: not registered(etcd), 30, lambda: registered(etcd))
        wait_for(lambda: len(syslog.records()) > seen, 30, lambda: server.log[-4000:])
        site.wait_until_nothing_is_left()


def _until_all_have_arrived(
    server: Server, etcd: Any, gateway: Any, metrics: Any, alertmanager: Any, syslog: Any
) -> None:
    def failure() -> str:
        return server.log[-4000:]

    wait_for(lambda: registered(etcd), 60, failure)
    (entry,) = registered(etcd)
    assert entry["port"] == server.port

    def completions() -> list[dict[str, str]]:
        return series(metrics, "vllm:request_success_total")

    wait_for(completions, 60, failure)
    assert {one["role"] for one in completions()} == {"scheduler"}
    with urllib.request.urlopen(f"{gateway.url}/metrics", timeout=10) as reply:
        assert "vllm:num_requests_running{" in reply.read().decode()

    wait_for(lambda: "EngineIsThere" in alertmanager.alerts(), 60, failure)
    wait_for(
        lambda: any("Application startup" in one.text for one in syslog.records()), 60, failure
    )
