# SPDX-License-Identifier: Apache-2.0
"""An engine for tests: it launches plugins, then runs each line of Python from its stdin."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import traceback

LAUNCHER = os.environ.get("LAUNCHER_UNDER_TEST", "lmcache_plugin_adapter")
"""The launcher's module; the ring of faults also runs LMCache's own."""


class Config:
    """The smallest configuration that a launcher takes."""

    def __init__(self, values):
        self.values = values
        self.runtime_plugin_locations = values.get("runtime_plugin_locations")
        self.extra_config = values.get("extra_config")

    def to_json(self):
        """Return all values."""
        return json.dumps(self.values)


def main():
    """Launch, then run lines until stdin ends."""
    # The starter of the tests may ignore these signals (nohup, a background job).
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
