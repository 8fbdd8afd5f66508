# SPDX-License-Identifier: Apache-2.0
"""Fixtures for the alert reporter: its targets, and engines to watch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alerting import NAME, PLUGIN, RealAlertmanager, Receiver, Start, check_webhook, settings_of
from harness import Engine


@pytest.fixture
def hook() -> Iterator[Receiver]:
    """A strict webhook."""
    with Receiver(check_webhook) as receiver:
        yield receiver


@pytest.fixture
def notified() -> Iterator[Receiver]:
    """The receiver of Alertmanager's notifications."""
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
