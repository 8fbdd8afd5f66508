# SPDX-License-Identifier: Apache-2.0
"""Measure ``lmcache-plugins status`` with 8 engine processes of 20 plugins each.

``python benchmarks/status.py`` prints the time of an answer, and the CPU time
that it takes of the command (asking and ``/proc``, the table) and of all
supervisors together. Python's own start and imports come on top of it once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lmcache_plugin_adapter.cli.status.report import make_report  # noqa: E402
from lmcache_plugin_adapter.cli.status.table import to_table  # noqa: E402
from lmcache_plugin_adapter.cli.supervisors import search  # noqa: E402

ENGINES = 8
PLUGINS = 20
ROUNDS = 20


def main() -> None:
    """Start engines, ask, print, end."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "plugins").mkdir()
        (directory / "run").mkdir(mode=0o700)
        for number in range(PLUGINS):
            (directory / f"plugins/all_p{number:02}.sh").write_text("exec sleep 3600\n")
        (directory / "lmcache.yaml").write_text("runtime_plugin_locations: [plugins]\n")
        environment = {**os.environ, "LMCACHE_PLUGINS_RUNTIME_DIR": str(directory / "run")}
        environment["PYTHONPATH"] = str(ROOT)
        command = [sys.executable, "-m", "lmcache_plugin_adapter", "run", "-c", "lmcache.yaml"]
        engines = subprocess.Popen(
            [*command, "--tp", str(ENGINES - 1)],
            cwd=directory,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            # Of this benchmark only, whatever else runs on the host.
            with (
                mock.patch.object(search, "candidates", return_value=[str(directory / "run")]),
                mock.patch.object(search, "_USERS_ROOTS", ()),
            ):
                measure()
        finally:
            engines.terminate()
            engines.wait()


def measure() -> None:
    """Ask again and again; print medians, in milliseconds."""
    while True:
        report = make_report()
        running = [plugin for _, plugin in report.plugins if plugin.pid]
        if len(running) == ENGINES * PLUGINS:
            break
        time.sleep(0.2)
    supervisors = [one.supervisor_pid for one in report.survey.supervisors]
    rounds = []
    for _ in range(ROUNDS):
        before = sum(map(cpu_of, supervisors))
        wall, start = time.perf_counter(), time.process_time()
        report = make_report()
        asked = time.process_time()
        to_table(report, None)
        shown = time.process_time()
        wall = time.perf_counter() - wall
        theirs = sum(map(cpu_of, supervisors)) - before
        rounds.append((wall, asked - start, shown - asked, theirs))
    for title, values in zip(
        ("answer", "CPU, asking", "CPU, table", "CPU, supervisors"),
        zip(*rounds, strict=True),
        strict=True,
    ):
        print(f"{title:18} {sorted(values)[ROUNDS // 2] * 1000:6.1f} ms")


def cpu_of(pid: int) -> float:
    """Return the CPU time of a process so far, in seconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


if __name__ == "__main__":
    main()
