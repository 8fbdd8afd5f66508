"""An engine for tests: launches plugins, then runs what it is told until its stdin ends."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback

LAUNCHER = os.environ.get("LAUNCHER_UNDER_TEST", "lmcache_plugin_adapter")
"""The module of the launcher: the ring of faults tries LMCache's own as well."""


class Config:
    """The least that a configuration is."""

    def __init__(self, values):
        self.values = values
        self.runtime_plugin_locations = values.get("runtime_plugin_locations")
        self.extra_config = values.get("extra_config")

    def to_json(self):
        """Return all values."""
        return json.dumps(self.values)


def main():
    """Serve until stdin ends."""
    # Whoever runs the tests may ignore these (nohup, a shell's background).
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    spec = json.loads(sys.argv[1])
    launcher_class = importlib.import_module(LAUNCHER).RuntimePluginLauncher
    scope = {"config": Config(spec["config"]), "RuntimePluginLauncher": launcher_class}
    exec(spec["prelude"], scope)
    launcher = launcher_class(
        scope["config"], spec["role"], spec["worker_count"], spec["worker_id"]
    )
    scope["launcher"] = launcher
    if spec["launch"]:
        launcher.launch_plugins()
    for line in sys.stdin:
        source = json.loads(line)
        try:
            try:
                value = eval(source, scope)
            except SyntaxError:
                exec(source, scope)
                value = None
            answer = {"value": value}
        except Exception:
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    main()
