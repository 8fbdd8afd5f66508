# SPDX-License-Identifier: Apache-2.0
"""What the kit reports by systemd's protocol."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import pytest

from lmcache_plugin_adapter import kit
from lmcache_plugin_adapter.kit import periodic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def received(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[str]]]:
    """The messages that have arrived at NOTIFY_SOCKET."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        address = f"\0{tmp_path.name}.{os.getpid()}"
        receiver.bind(address)
        receiver.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{address[1:]}")

        def read() -> list[str]:
            messages = []
            while True:
                try:
                    messages.append(receiver.recv(4096).decode())
                except BlockingIOError:
                    return messages

        yield read


def test_readiness_and_status_are_reported(received: Callable[[], list[str]]) -> None:
    """A status is one line."""
    assert kit.ready()
    assert kit.status("serving\n7 clients")
    assert received() == ["READY=1", "STATUS=serving 7 clients"]


def test_without_the_setting_nothing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor if the supervisor has gone."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not kit.ready()
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/socket")
    assert not kit.status("x")


@pytest.mark.parametrize(("pid", "fed"), [("own", True), (None, True), ("1", False)])
def test_rounds_feed_the_watchdog(
    received: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, pid: str | None, fed: bool
) -> None:
    """Also during a wait that is longer than the watchdog's time; only of this process."""
    monkeypatch.setenv("WATCHDOG_USEC", "4000000")
    if pid is None:
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
    else:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)

    class Clock:
        def __init__(self) -> None:
            self.now = 0.0
            self.waits: list[float] = []

        def monotonic(self) -> float:
            return self.now

        def wait(self, seconds: float) -> bool:
            self.waits.append(seconds)
            self.now += max(seconds, 0)
            return self.now >= 20

    clock: Any = Clock()
    monkeypatch.setattr(periodic, "time", clock)
    rounds = []
    messages = []
    for _ in kit.every(10, stop=clock, jitter=0):
        rounds.append(clock.now)
        messages += received()
    assert rounds == [0, 10]
    assert set(messages) == ({"WATCHDOG=1"} if fed else set())
    if fed:
        assert max(clock.waits) == 2
        assert len(messages) >= 6


def test_a_plugin_of_the_kit_is_ready(run_plugin: Any, tmp_path: Path) -> None:
    """Under the real supervisor; its watchdog is shorter than its rounds."""
    path = tmp_path / "worker_x.py"
    path.write_text(
        "from lmcache_plugin_adapter import kit\n"
        "def main(ctx, stop):\n"
        "    kit.ready()\n"
        "    for tick in kit.every(3.5, stop=stop, jitter=0):\n"
        "        kit.info(f'round {tick}')\n"
        "        if tick == 2: return 0\n"
        "if __name__ == '__main__':\n"
        "    raise SystemExit(kit.run(main))\n"
    )
    path.chmod(0o755)
    watched = {"notify": True, "watchdog": "3s", "nice": 0}
    config = {"extra_config": {"runtime_plugins": watched}}
    plugin = run_plugin(path, role="worker", config=config)
    assert plugin.wait_exit(60) == 0
    reports = [line.text for line in plugin.reports]
    assert any(text.startswith("Ready after") for text in reports)
    assert not any("watchdog" in text for text in reports)
