# SPDX-License-Identifier: Apache-2.0
"""All plugins of the gallery beside real vLLM and beside LMCache's server, with the real servers
that they report to.
"""  # noqa: D205

from __future__ import annotations

import base64
import importlib.util
import json
import os
import re
import signal
import subprocess
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


def etcd_in(data: Path) -> Any:
    """Return an etcd, not yet started."""
    from servers import Server as Helper
    from servers import debian_binary

    return Helper(
        [
            debian_binary("etcd-server", "etcd"),
            "--data-dir={data}/etcd",
            "--listen-client-urls=http://127.0.0.1:{port}",
            "--advertise-client-urls=http://127.0.0.1:{port}",
            "--listen-peer-urls=http://127.0.0.1:{peer}",
            "--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            "--initial-cluster=default=http://127.0.0.1:{peer}",
        ],
        data,
        ports=["peer"],
    )


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
    from servers import serving as serving_others

    etcd = etcd_in(tmp_path / "etcd")
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


PAGE = Path(__file__).parents[2] / "docs" / "operators" / "lmcache-server.md"


def blocks_of_the_page() -> list[str]:
    """Return the marked blocks of the page: the file, two commands, the server, four commands."""
    pattern = r"<!-- [^>]*four plugins -->\n\n```\w+\n(.*?)```"
    return re.findall(pattern, PAGE.read_text(), re.DOTALL)


def command(site: Site, line: str) -> str:
    """Run a command of the page, and return its output."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line],
        env={**os.environ, **site.environ, "PATH": path},
        cwd=site.directory,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(
    importlib.util.find_spec("lmcache.v1.multiprocess.ext_server_module") is None,
    reason="this LMCache's server takes no modules",
)
def test_the_page_of_the_server(tmp_path: Path) -> None:
    """Its file and its commands put four plugins to work beside LMCache's server; when the server
    is killed, an alert says so, its entry and its metrics go, and its last lines arrive.
    """  # noqa: D205
    from alerting import RealAlertmanager
    from log_receivers import Rsyslog
    from metric_servers import pushgateway
    from servers import serving as serving_others
    from test_mp_server import lmcache_server

    etcd, gateway = etcd_in(tmp_path / "etcd"), pushgateway(tmp_path / "gateway")
    alertmanager = RealAlertmanager(tmp_path / "alertmanager")
    syslog = Rsyslog(tmp_path / "syslog")
    site = Site(tmp_path / "site")
    module, check, start, look = blocks_of_the_page()
    for port, server in (
        ("127.0.0.1:9091", gateway),
        ("127.0.0.1:9093", alertmanager),
        ("127.0.0.1:2379", etcd),
    ):
        assert module.count(port) == 1
        module, look = (text.replace(port, f"127.0.0.1:{server.port}") for text in (module, look))
    module = module.replace('"port": 601', f'"port": {syslog.port}')
    (site.directory / "module.json").write_text(module)
    table, found = (command(site, line) for line in check.splitlines())
    names = ("all_metric_reporter", "all_alert_reporter", "server_heartbeat", "server_log_reporter")
    assert all(name in table for name in names)
    assert "0 errors" in table
    assert "lmcache_plugin_adapter.server_module" in found
    assert '--server-module "$(cat module.json)" > lmcache.log 2>&1' in start

    with (
        serving_others(etcd, gateway, alertmanager, syslog.server),
        lmcache_server(site, "--server-module", module) as server,
    ):

        def failure() -> str:
            return server.log[-4000:]

        def pushed() -> str:
            with urllib.request.urlopen(f"{gateway.url}/metrics", timeout=10) as reply:
                return str(reply.read().decode())

        running = dict.fromkeys(names, "running")
        wait_for(lambda: server.states() == running, 120, server.states)
        wait_for(lambda: registered(etcd), 120, failure)
        (entry,) = registered(etcd)
        assert (entry["service"], entry["role"]) == ("lmcache", "server")
        assert f'"port": {entry["port"]}' in json.dumps(server.get("/config"))
        wait_for(lambda: 'role="server"' in pushed(), 120, failure)
        assert "lmcache" in pushed()
        assert "EngineDied" not in alertmanager.alerts()
        look = look.replace("127.0.0.1:8080", f"127.0.0.1:{server.http}")
        status, page, metrics, alerts = (command(site, line) for line in look.splitlines())
        assert all(name in status for name in names)
        assert all(name in page for name in names)
        assert 'role="server"' in metrics
        assert isinstance(json.loads(alerts), list)
        os.kill(server.process.pid, signal.SIGKILL)
        server.wait()
        wait_for(lambda: "EngineDied" in alertmanager.alerts(), 120, failure)
        assert alertmanager.alerts()["EngineDied"]["labels"]["role"] == "server"
        wait_for(lambda: not registered(etcd), 120, lambda: registered(etcd))
        wait_for(lambda: 'role="server"' not in pushed(), 120, failure)
        wait_for(lambda: any("EngineDied" in one.text for one in syslog.records()), 120, failure)
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
