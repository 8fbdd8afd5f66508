# SPDX-License-Identifier: Apache-2.0
"""``metrics: {textfile: DIR}`` through a real node_exporter into a real Prometheus."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import Engine, wait_until
from metric_servers import Prometheus, get
from servers import Server, debian_binary, serving

UP = "echo up; exec sleep 60"
SCRAPES = """\
global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}
scrape_configs:
  - job_name: node
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


def node_exporter(directory: Path, data: Path) -> Server:
    """A node_exporter with the textfile collector alone."""
    return Server(
        [
            debian_binary("prometheus-node-exporter"),
            "--web.listen-address=127.0.0.1:{port}",
            "--collector.disable-defaults",
            "--collector.textfile",
            f"--collector.textfile.directory={directory}",
        ],
        data,
    )


def scraping(exporter: Server, data: Path) -> Prometheus:
    """A Prometheus that scrapes node_exporter four times a second."""
    data.mkdir()
    (data / "prometheus.yml").write_text(SCRAPES.format(port=exporter.port))
    return Prometheus(
        [
            debian_binary("prometheus"),
            "--config.file={data}/prometheus.yml",
            "--storage.tsdb.path={data}/tsdb",
            "--web.listen-address=127.0.0.1:{port}",
        ],
        data,
    )


def query(server: Server, text: str) -> list[dict[str, str]]:
    """Return the labels of the series that a query finds now."""
    found = get(f"{server.url}/api/v1/query", query=text)
    return [one["metric"] for one in found["data"]["result"]]


def test_two_engines_of_a_node(plugin: Any, engine: Callable[..., Engine], tmp_path: Path) -> None:
    """Series of both arrive, though role and rank are the same; those of one end with it."""
    plugin("all_up.sh", UP)
    plugin("all_crash.sh", "exit 3")
    directory = tmp_path / "textfile"
    directory.mkdir()
    exporter = node_exporter(directory, tmp_path / "exporter")
    prometheus = scraping(exporter, tmp_path / "prometheus")
    settings = {"metrics": {"textfile": str(directory)}, "restart": "never"}
    with serving(exporter, prometheus):
        engines = [engine(settings, worker_id=0, role=role) for role in ("scheduler", "worker")]
        twin = engine(settings, worker_id=0, role="worker")
        running = 'lmcache_plugin_state{plugin="all_up", state="running"} == 1'
        wait_until(lambda: len(query(prometheus, running)) == 3, 30, "three engines")
        labels = {(one["role"], one["engine_pid"]) for one in query(prometheus, running)}
        assert labels == {
            ("scheduler", str(engines[0].pid)),
            ("worker", str(engines[1].pid)),
            ("worker", str(twin.pid)),
        }
        wait_until(
            lambda: len(query(prometheus, "lmcache_plugin_last_exit_code == 3")) == 3, 30, "exits"
        )
        assert query(prometheus, "node_textfile_scrape_error == 0")
        files = query(prometheus, 'node_textfile_mtime_seconds{file=~".*lmcacheplugins.*"}')
        assert len(files) == 3
        done = subprocess.run(
            [debian_binary("prometheus", "promtool"), "check", "metrics"],
            input=next(directory.glob("*.prom")).read_text(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")

        twin.kill()
        wait_until(lambda: len(query(prometheus, running)) == 2, 30, "one engine less")
