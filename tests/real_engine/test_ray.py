# SPDX-License-Identifier: Apache-2.0
"""The launcher in real Ray actors, as vLLM's Ray executor would run it in its workers.

vLLM refuses that executor on a CPU. What matters is how Ray ends a worker: by
``ray.kill``, which calls no ``shutdown``, by a crash, and by the driver's end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from site_under_test import DAEMONISES, Site, wait_for

pytest.importorskip("ray")

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)

# Runs the launcher in two actors, worker 0 and 1, then ends them as it is told.
DRIVER = """
import json, os, sys, time
import ray

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=1, max_restarts=0)
class Worker:
    def start(self, rank):
        from lmcache_plugin_adapter import RuntimePluginLauncher

        class Config:
            runtime_plugin_locations = [os.environ["PLUGINS"]]
            extra_config = {"runtime_plugins": {"stop_grace": 5}}

            def to_json(self):
                return json.dumps({"runtime_plugin_locations": self.runtime_plugin_locations,
                                   "extra_config": self.extra_config})

        self.launcher = RuntimePluginLauncher(Config(), "worker", 2, rank)
        self.launcher.launch_or_raise()
        return os.getpid()

    def crash(self):
        os.abort()

workers = [Worker.remote() for _ in range(2)]
print(json.dumps(ray.get([one.start.remote(rank) for rank, one in enumerate(workers)])), flush=True)
how = sys.stdin.readline().strip()
if how == "kill":
    for one in workers:
        ray.kill(one)
elif how == "crash":
    for one in workers:
        try:
            ray.get(one.crash.remote())
        except ray.exceptions.RayError:
            pass
if how != "exit":
    print("ALL-ENDED", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["kill", "crash", "exit"])
def test_actors(tmp_path: Path, how: str) -> None:
    """Plugins of both workers run once, say goodbye when their actor is gone, and leave nothing."""
    site = Site(tmp_path / "site")
    site.add("worker_1_daemon.sh", DAEMONISES)
    environ = {**os.environ, **site.environ, "PLUGINS": str(site.plugins), "RAY_DEDUP_LOGS": "0"}
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environ,
        text=True,
        start_new_session=True,
    ) as driver:
        assert driver.stdin is not None
        assert driver.stdout is not None
        try:
            pids = driver.stdout.readline()
            wait_for(lambda: len(site.seen()) == 2, 30)
            assert [(one.role, one.worker_id) for one in site.seen()] == [
                ("WORKER", 0),
                ("WORKER", 1),
            ]
            assert str([one.start["engine"] for one in site.seen()]) == pids.strip()
            driver.stdin.write(f"{how}\n")
            driver.stdin.flush()
            if how != "exit":
                # Ray itself writes of a crash here too, and into the same line.
                lines = iter(driver.stdout.readline, "")
                assert any("ALL-ENDED" in line for line in lines)
            wait_for(
                lambda: not [line for line in site.processes().values() if _is_ours(line)],
                60,
                site.processes,
            )
        finally:
            driver.stdin.close()
            driver.wait(60)
    for one in site.seen():
        assert one.goodbye is not None
        assert one.goodbye["engine_state"] in ("Z", "gone")
    site.wait_until_nothing_is_left()


def _is_ours(command_line: str) -> bool:
    return any(word in command_line for word in ("bootstrap.py", "witness", "daemon", "sleep"))
