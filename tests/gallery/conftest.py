"""Fixtures for the alert reporter: whom it tells, and engines that it looks after."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alerting import NAME, PLUGIN, RealAlertmanager, Receiver, Start, check_webhook, settings_of
from harness import Engine

# The servers of tests are on loopback, and no proxy leads there.
for _name in ("no_proxy", "NO_PROXY"):
    os.environ[_name] = ",".join(filter(None, [os.environ.get(_name), "127.0.0.1,localhost"]))


@pytest.fixture(autouse=True)
def _state_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a plugin remembers is for no other test's, and not for this user's."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state-home"))


@pytest.fixture
def hook() -> Iterator[Receiver]:
    """A strict webhook."""
    with Receiver(check_webhook) as receiver:
        yield receiver


@pytest.fixture
def notified() -> Iterator[Receiver]:
    """Whom Alertmanager notifies."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def alertmanager(tmp_path: Path, notified: Receiver) -> Iterator[RealAlertmanager]:
    """Debian's Alertmanager."""
    with RealAlertmanager(tmp_path / "alertmanager", notified.url) as server:
        assert isinstance(server, RealAlertmanager)
        yield server


@pytest.fixture
def start_reporter(engine: Start, plugin: Callable[..., Path]) -> Start:
    """Start an engine with the reporter; keywords are the reporter's settings."""
    plugin(f"{NAME}.py", PLUGIN)

    def begin(engine_options: dict[str, Any] | None = None, **settings: Any) -> Engine:
        return engine(settings_of(**settings), **(engine_options or {}))

    return begin
