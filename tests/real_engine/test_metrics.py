# SPDX-License-Identifier: Apache-2.0
"""Metrics, logging and commands beside a real vLLM: what operators see of plugins."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from site_under_test import Site, wait_for
from vllm_server import Server, serving

pytestmark = pytest.mark.timeout(900)

# vLLM's own recipe for logs that machines read.
LOGGING = {
    "version": 1,
    "formatters": {
        "json": {
            "class": "logging.Formatter",
            "format": '{"json": "%(message)s", "level": "%(levelname)s", "logger": "%(name)s"}',
        }
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": "json",
            "stream": "ext://sys.stderr",
        }
    },
    "loggers": {"vllm": {"handlers": ["console"], "level": "INFO", "propagate": False}},
}


def scrape(server: Server) -> str:
    """Return vLLM's own page."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=20) as reply:
        return str(reply.read().decode())


def sample(page: str, name: str, **labels: str) -> float | None:
    """Return one sample of a page; None if it is not there."""
    for line in page.splitlines():
        if line.startswith(f"{name}{{") and all(f'{k}="{v}"' in line for k, v in labels.items()):
            return float(line.rsplit(" ", 1)[1])
    return None


def command(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one of the operators' commands."""
    return subprocess.run(
        [sys.executable, "-m", "lmcache_plugin_adapter", *words],
        env={**os.environ, **site.environ},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_metrics_logging_and_commands(tmp_path: Path, model: Path) -> None:
    """A scrape of vLLM shows plugins of scheduler and worker, beside vLLM's own metrics; plugins'
    lines come through vLLM's JSON logging; status sees the engine by its title.
    """  # noqa: D205
    site = Site(tmp_path / "site", stop_grace=1, metrics=True, log="logging")
    site.add("worker_crash.sh", "echo broken; exit 3\n")
    directory = tmp_path / "prometheus"
    directory.mkdir()
    recipe = tmp_path / "logging.json"
    recipe.write_text(json.dumps(LOGGING))
    environ: dict[str, Any] = {
        "PROMETHEUS_MULTIPROC_DIR": str(directory),
        "VLLM_LOGGING_CONFIG_PATH": str(recipe),
    }
    with serving(site, model, **environ) as server:
        server.complete()
        who = {"role": "scheduler", "worker_id": "-1", "dp_rank": "0"}
        running = {"plugin": "all_witness", "state": "running"}
        wait_for(lambda: sample(scrape(server), "lmcache_plugin_state", **running, **who), 30)
        worker = {"plugin": "worker_crash", "role": "worker", "worker_id": "0"}
        wait_for(lambda: sample(scrape(server), "lmcache_plugin_restarts_total", **worker), 30)
        page = scrape(server)
        assert sample(page, "lmcache_plugin_last_exit_code", **worker) == 3
        memory = sample(page, "lmcache_plugin_supervisor_resident_memory_bytes", **who)
        assert memory is not None
        assert memory > 1_000_000
        assert "# TYPE lmcache_plugin_output_lines_total counter" in page
        assert "vllm:num_requests_running" in page

        for said in (
            '{"json": "[all_witness] watching", "level": "INFO", ',
            '"logger": "vllm.lmcache_plugins"}',
            '{"json": "[worker_crash] Exited with code 3',
        ):
            wait_for(lambda said=said: said in server.log, 20, lambda said=said: said)

        done = command(site, "status", "--json")
        document = json.loads(done.stdout)
        mine = {
            one["role"]: one
            for one in document["supervisors"]
            if one["directory"].startswith(str(site.directory))
        }
        assert sorted(mine) == ["scheduler", "worker"]
        assert mine["scheduler"]["engine_pid"] == server.engine_core
        assert "EngineCore" in mine["scheduler"]["engine_command"]
        assert command(site, "status", "--check", "all_witness").returncode == 0
        assert command(site, "status", "--check", "worker_crash").returncode == 1
        assert "broken" in command(site, "logs", "worker_crash", "-n", "1").stdout

        server.signal_group(signal.SIGINT)
        assert server.wait() == 0
        site.wait_until_nothing_is_left()
    assert [name for name in os.listdir(directory) if "lmcacheplugins" in name] == []
