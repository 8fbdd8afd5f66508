# SPDX-License-Identifier: Apache-2.0
"""What the tests of the heartbeat share: settings for impatient tests, ends of a whole host."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from harness import gone, wait_until
from vllm_stub import VllmStub

from lmcache_plugin_adapter.kit.testing.trial import Trial

SECTION = "extra_config.runtime_plugins.plugins.scheduler_heartbeat.settings"


def settings_for(vllm: VllmStub, **settings: Any) -> dict[str, Any]:
    """Return the plugin's settings, quick to see what is wrong with an engine."""
    engine = {"timeout": 1.0, "failures": 2, "stopped_after": 0.3, "stalled_after": 1.0}
    return {
        "instance": "one",
        "address": "10.1.2.3",
        "port": vllm.port,
        "interval": 0.2,
        "engine": engine,
        **settings,
    }


def kill_everything(plugin: Trial) -> None:
    """SIGKILL plugin, supervisor and engine, as a power cut does."""
    pid = plugin.pid
    assert pid is not None
    stat = Path(f"/proc/{pid}/stat").read_text()
    supervisor = int(stat[stat.rindex(")") + 2 :].split()[1])
    os.kill(supervisor, signal.SIGSTOP)  # it must not say goodbye to the plugin
    plugin.engine.signal(signal.SIGSTOP)  # nor get a successor from the engine
    os.kill(pid, signal.SIGKILL)
    plugin.engine.kill()
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: gone(pid) and gone(supervisor))


def texts(plugin: Trial) -> str:
    """Return all that the plugin has printed."""
    return "\n".join(line.text for line in plugin.lines)
