# SPDX-License-Identifier: Apache-2.0
"""The choices of ``lmcache-plugins new`` and its templates; words between ``@`` are replaced."""

from __future__ import annotations

from enum import Enum


class RoleWord(str, Enum):
    """The role in a plugin's file name."""

    SCHEDULER = "scheduler"
    WORKER = "worker"
    ALL = "all"
    SERVER = "server"


class Language(str, Enum):
    """The language of a plugin."""

    PYTHON = "python"
    BASH = "bash"


PYTHON = '''\
#!/usr/bin/env python3
"""@WHERE@: logs every few seconds how many threads its engine has.

Try it:    lmcache-plugins run -c @CONFIG@@OPTIONS@
Settings:  extra_config.runtime_plugins.plugins.@STEM@.settings
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

from lmcache_plugin_adapter import kit

try:
    import msgspec
except ModuleNotFoundError as missing:
    kit.exit_without(missing)


class Settings(msgspec.Struct):
    """The settings with defaults and limits; invalid values are logged."""

    interval: Annotated[kit.Duration, msgspec.Meta(gt=0, description="Time between lines.")] = 10.0


__plugin_settings__ = Settings  # lmcache-plugins check validates the settings with it


def main(ctx: kit.Context, stop: kit.Stop) -> None:
    """Work until the engine exits."""
    settings = ctx.settings(Settings)
    kit.info(f"Watching {ctx.label} every {settings.interval:g} s")
    for _ in kit.every(settings.interval, stop=stop):
        log_threads(ctx)
    # The engine exits, or was killed: stop.remaining() seconds are left.
    kit.info("Goodbye")


def log_threads(ctx: kit.Context) -> None:
    """Do the plugin's work."""
    try:
        threads = len(os.listdir(f"/proc/{ctx.engine_pid}/task"))
    except FileNotFoundError:
        kit.warning(f"Engine process {ctx.engine_pid} is gone")
    else:
        kit.info(f"Engine process {ctx.engine_pid} has {threads} threads")


if __name__ == "__main__":
    sys.exit(kit.run(main))

# The same without the kit:
#   role and id  os.environ["LMCACHE_RUNTIME_PLUGIN_ROLE"], "..._WORKER_ID", "..._WORKER_COUNT"
#   settings     json.loads(os.environ["LMCACHE_RUNTIME_PLUGIN_CONFIG"])["extra_config"]...
#   stop         signal.signal(signal.SIGTERM, lambda *_: sys.exit()), the goodbye in a "finally"
#   levels       print("<3>an error"), print("<4>a warning"), print("<7>for debugging")
'''

BASH = """\
#!/usr/bin/env bash
# @WHERE@: logs every few seconds how many threads its engine has.
#
# Try it:    lmcache-plugins run -c @CONFIG@@OPTIONS@
# Settings:  INTERVAL, in extra_config.runtime_plugins.plugins.@STEM@.env
set -u

interval=${INTERVAL:-10}
engine=$LMCACHE_RUNTIME_PLUGIN_ENGINE_PID

case $LMCACHE_RUNTIME_PLUGIN_ROLE in
    WORKER) who="worker $LMCACHE_RUNTIME_PLUGIN_WORKER_ID" ;;
    *) who=${LMCACHE_RUNTIME_PLUGIN_ROLE,,} ;;
esac

# SIGTERM to this process alone ends "wait" at once, but would not end a "sleep" in the
# foreground.
trap 'kill $(jobs -p) 2>/dev/null; echo "Goodbye"; exit 0' TERM

echo "Watching $who every $interval s"
while true; do
    threads=(/proc/"$engine"/task/*)
    if [ -e "${threads[0]}" ]; then
        echo "Engine process $engine has ${#threads[@]} threads"
    else
        echo "<4>Engine process $engine is gone" # <4> is a warning, <3> an error
    fi
    sleep "$interval" &
    wait $!
done
"""

_TEST = '''\
"""@STEM@ with a stand-in engine: the test needs neither vLLM nor a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmcache_plugin_adapter.kit.testing import RunPlugin

PLUGIN = Path(__file__).parents[1] / "@FILE@"


def test_logs_and_stops_with_the_engine(run_plugin: RunPlugin) -> None:
    """The plugin logs repeatedly, and logs a last line when the engine exits."""
    plugin = run_plugin(PLUGIN, @PLACE@, %s)
    first = plugin.wait_for(f"Engine process {plugin.engine.pid} has")
    assert first.level == "info"
    plugin.wait_for("has", since=len(plugin.lines))
    assert plugin.stop() == 0
    assert plugin.lines[-1].text == "Goodbye"


def test_stops_when_the_engine_is_killed(run_plugin: RunPlugin) -> None:
    """The plugin has its grace period even then."""
    plugin = run_plugin(PLUGIN, @PLACE@)
    plugin.wait_for("Engine process")
    plugin.engine.kill()
    assert plugin.wait_exit() == 0
    assert plugin.lines[-1].text == "Goodbye"
'''

PYTHON_TEST = f'''{_TEST % 'settings={"interval": 0.1}'}

def test_reports_an_invalid_setting(run_plugin: RunPlugin) -> None:
    """The plugin logs the key and uses the default."""
    plugin = run_plugin(PLUGIN, @PLACE@, settings={{"interval": "often"}})
    assert plugin.wait_for("settings.interval").level == "error"
    plugin.wait_for("every 10 s")
'''

BASH_TEST = _TEST % 'env={"INTERVAL": "0.1"}'

CONFIG = """\
# To try plugins with: lmcache-plugins run -c @CONFIG@@OPTIONS@
runtime_plugin_locations: [@DIRECTORY@]
extra_config:
  runtime_plugins:
    plugins:
      @STEM@:
        @SETTINGS@
"""
