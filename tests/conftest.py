# SPDX-License-Identifier: Apache-2.0
"""Fixtures of all rings: plugins, engines that must leave nothing behind, stand-ins."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import Engine, marked, survivors, wait_until
from hypothesis import HealthCheck, settings
from mocked_launcher import MockedLaunchers

# Rings run in parallel on small machines, so a slow example is no failure. Each run has the same
# examples, so that only a change can make a test fail; fuzz/run.py tries new examples.
settings.register_profile(
    "rings", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("rings")

# The supervisor refuses plugins that others may write, and plugins that it cannot read.
os.umask(0o022)

# A background job of a script ignores SIGINT and SIGQUIT, and nohup ignores SIGHUP. The processes
# of the tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A directory for plugins."""
    directory = tmp_path / "plugins"
    directory.mkdir()
    return directory


@pytest.fixture
def plugin(plugins: Path) -> Callable[..., Path]:
    """Write a plugin: ``plugin("worker_x.sh", "echo hello")``."""

    def write(name: str, text: str | bytes, mode: int = 0o755) -> Path:
        path = plugins / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(stat.S_IMODE(mode))
        return path

    return write


@pytest.fixture
def engine(tmp_path: Path, plugins: Path) -> Iterator[Callable[..., Engine]]:
    """Return a function that starts engines; at the end, none of their processes may be left."""
    started: list[Engine] = []

    def start(
        settings: dict[str, Any] | None = None,
        locations: object = None,
        extra_config: dict[str, Any] | None = None,
        **options: Any,
    ) -> Engine:
        # As important as the tests: beside busy processes, a plugin with nice 19 runs seldom.
        own = {"nice": 0, **(settings or {})}
        config = {
            "runtime_plugin_locations": [str(plugins)] if locations is None else locations,
            "extra_config": {**(extra_config or {}), "runtime_plugins": own},
        }
        options.setdefault("worker_id", len(started))
        one = Engine(tmp_path, config, **options)
        started.append(one)
        return one

    yield start
    try:
        for one in started:
            one.close()
        wait_until(lambda: not marked(str(tmp_path)), 20, "no process left", interval=0.02)
    except AssertionError:
        left = list(survivors(tmp_path))
        for line in left:
            os.kill(int(line.split()[0]), signal.SIGKILL)
        logs = "\n".join(one.log() for one in started)
        pytest.fail(f"left behind: {left}\n{logs}")
    run = tmp_path / "run"
    assert not run.exists() or os.listdir(run) == []


@pytest.fixture
def launchers(mocker: Any) -> MockedLaunchers:
    """Stand-ins for the adapter's launcher, which start nothing."""
    return MockedLaunchers(mocker)
