# SPDX-License-Identifier: Apache-2.0
"""Reference pages: commands as the code has them, metrics and log lines as they appear."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING

from cli_under_test import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from harness import Engine

REFERENCE = ROOT / "docs" / "reference"


def test_the_commands_have_not_drifted() -> None:
    """After a change, write the page anew; its first line says how."""
    path = REFERENCE / "write_commands.py"
    spec = importlib.util.spec_from_file_location("write_commands", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (REFERENCE / "commands.md").read_text() == module.commands_page()


def test_every_metric_is_on_its_page() -> None:
    """By the names of the module that writes them, and no other."""
    page = (REFERENCE / "metrics.md").read_text()
    sources = (ROOT / "lmcache_plugin_adapter" / "supervisor" / "metrics").glob("*.py")
    pattern = r'"(lmcache_plugin_\w+?)(?:_total)?"'
    names = {name for source in sources for name in re.findall(pattern, source.read_text())}
    assert len(names) >= 6
    shown = set(re.findall(r"^\| `(\w+?)(?:_total)?` \|", page, re.MULTILINE))
    assert shown == names


def test_log_lines_appear_as_the_page_shows_them(
    engine: Callable[..., Engine], plugin: Callable[..., Path]
) -> None:
    """Plugins that fail in each way, and an engine that stops: every row of the page occurs."""
    plugin("all_done.sh", "echo done")
    plugin("all_fails.sh", "exit 3")
    plugin("all_killed.sh", "kill -USR2 $$")
    plugin("all_gives_up.sh", "exit 125")
    plugin("all_broken.sh", "#!/bin/sh\n", mode=0o777)
    plugin("all_no_program", b"\x7fELF nothing that runs")
    plugin("all_deaf.sh", "trap '' TERM; echo up; while :; do sleep 1; done")
    plugin("all_floods.sh", "while :; do echo flood; done")
    plugin("all_job.sh", "exit 0")
    plugin("all_late.sh", "exec sleep 60")
    plugin(
        "all_hangs.py",
        "import os, socket, time\n"
        "sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "sender.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])\n"
        "time.sleep(60)\n",
    )
    own = {
        "all_job": {"every": "1h"},
        "all_late": {"every": "1h", "timeout": "1s"},
        "all_hangs": {"notify": True, "watchdog": "1s"},
    }
    limit = {"lines": 1, "burst": 1, "per": 1}
    one = engine({"stop_grace": 0.3, "rate_limit": limit, "plugins": own})
    rows = re.findall(
        r"^\| ([A-Z]+) \| `([^`]+)` \|", (REFERENCE / "log-lines.md").read_text(), re.MULTILINE
    )
    assert len(rows) > 10
    patterns = [
        rf"LMCache {level}: \[[^]]+\] {re.escape(line).replace('…', '.*')}" for level, line in rows
    ]
    until_stop = ("Stopped", "Did not end", "Stopping", "Reloaded")
    for (_, line), pattern in zip(rows, patterns, strict=True):
        if not line.startswith(until_stop):
            one.wait_log(pattern, 30)
    one.ask("reload")
    one.wait_log(r"Reloaded: ", 30)
    one.do("launcher.stop_plugins()")
    for pattern in patterns:
        one.wait_log(pattern, 30)
