#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs on the scheduler: says at an interval that the engine is alive.

Its parameters stand in lmcache.yaml under ``extra_config``:

    foo_plugin: {interval: 5}  # seconds between two reports
"""

import json
import os
import signal
import sys
import time

ROLE = os.environ["LMCACHE_RUNTIME_PLUGIN_ROLE"]
WORKER_ID = int(os.environ["LMCACHE_RUNTIME_PLUGIN_WORKER_ID"])  # -1 on the scheduler
WORKER_COUNT = int(os.environ["LMCACHE_RUNTIME_PLUGIN_WORKER_COUNT"])
CONFIG = json.loads(os.environ["LMCACHE_RUNTIME_PLUGIN_CONFIG"])


def main() -> None:
    parameters = (CONFIG.get("extra_config") or {}).get("foo_plugin") or {}
    if "interval" not in parameters:
        print("<4>No 'extra_config.foo_plugin.interval': taking 5 s")  # <4> is a warning
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    print(f"hello from {ROLE} {WORKER_ID} of {WORKER_COUNT} workers")
    started = time.monotonic()
    try:
        while True:
            time.sleep(parameters.get("interval", 5))
            print(f"up for {time.monotonic() - started:.0f} s")
    finally:
        print("goodbye")


if __name__ == "__main__":
    main()
