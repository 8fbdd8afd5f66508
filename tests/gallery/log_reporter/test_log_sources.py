# SPDX-License-Identifier: Apache-2.0
"""Datagrams for syslog, and a trial on the console."""

from __future__ import annotations

import json
import os
import re
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import wait_until
from plugins import LOG_REPORTER, log_settings

LINE = "(EngineCore_DP0 pid=7) WARNING 11-22 07:06:56 [core.py:12] Full"


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, Any]:
    """Settings without source and target."""
    return log_settings(tmp_path)


class Datagrams:
    """A socket that keeps what it gets."""

    def __init__(self, bound: socket.socket) -> None:
        self.socket = bound
        self.got: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                data = self.socket.recv(65536)
            except OSError:
                return
            self.got.append(data.decode())


@pytest.mark.parametrize("protocol", ["udp", "local"])
def test_syslog_by_datagrams(
    protocol: str, tmp_path: Path, settings: dict[str, Any], run_plugin: Callable[..., Any]
) -> None:
    """One message each; a daemon that is not there yet loses nothing."""
    log = tmp_path / "vllm.log"
    log.write_text(f"{LINE}\nline one\n  and two\n")
    path = f"/tmp/syslog-{os.getpid()}.sock"
    listener = socket.socket(
        socket.AF_INET if protocol == "udp" else socket.AF_UNIX, socket.SOCK_DGRAM
    )
    if protocol == "udp":
        listener.bind(("127.0.0.1", 0))
        target = {"host": "127.0.0.1", "port": listener.getsockname()[1]}
    else:
        target = {"socket": path}
    settings |= {"files": str(log), "syslog": {"protocol": protocol, **target}}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    try:
        if protocol == "local":
            plugin.wait_for("cannot be reached: No such file or directory", 60)
            listener.bind(path)
        server = Datagrams(listener)
        wait_until(lambda: len(server.got) >= 2, 60, "2 messages")
        assert plugin.stop() == 0
        first, second = server.got
        if protocol == "udp":
            assert first.startswith("<132>1 ")
            assert first.endswith("] Full")
        else:
            pattern = r"<132>Nov 22 07:06:56 vllm\[7\]: \(EngineCore_DP0\) Full"
            assert re.fullmatch(pattern, first)
        assert second.endswith("line one\n  and two")
    finally:
        listener.close()
        Path(path).unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ({}, "host is missing"),
        ({"host": "x", "protocol": "udp", "tls": True}, "tls needs protocol: tcp"),
        ({"host": "x", "protocol": "quic"}, "accepted is 'local', 'tcp' or 'udp'"),
    ],
)
def test_protocols_that_are_none(
    target: dict[str, Any],
    text: str,
    tmp_path: Path,
    settings: dict[str, Any],
    run_plugin: Callable[..., Any],
) -> None:
    """One line says so."""
    settings |= {"files": str(tmp_path / "x.log"), "syslog": target}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    plugin.wait_for(text, 60)


def test_the_console_does_not_follow_itself(
    tmp_path: Path, settings: dict[str, Any], run_plugin: Callable[..., Any]
) -> None:
    """What it prints into the followed log is not delivered again."""
    log = tmp_path / "vllm.log"
    log.write_text(f"{LINE}\n")
    settings |= {"files": str(log), "target": "console"}
    plugin = run_plugin(LOG_REPORTER, settings=settings)
    line = plugin.wait_for("Would deliver: ", 60)
    found = json.loads(line.text.partition("Would deliver: ")[2])
    assert found["text"] == "Full"
    assert (found["level"], found["process"], found["role"]) == (
        "warning",
        "EngineCore_DP0",
        "scheduler",
    )
    name = "scheduler_log_reporter"
    with log.open("a") as file:
        head = "[2026-11-22 07:06:56,699] LMCache INFO: "
        file.write(f'{head}[{name}] Would deliver: {{"text": "Full"}} ({name}.py:1:x)\nlast\n')
    plugin.wait_for('"text":"last"', 60)
    assert plugin.stop() == 0
    assert sum("Would deliver: " in line.text for line in plugin.lines) == 2
