#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reports on worker 0 how full LMCache's disk backend is.

extra_config: {disk_backend: {interval: 60, warn_percent: 90}}  # of max_local_disk_size or disk
"""

import json
import os
import shutil
import signal
import sys
import time

CONFIG = json.loads(os.environ["LMCACHE_RUNTIME_PLUGIN_CONFIG"])
PARAMETERS = (CONFIG.get("extra_config") or {}).get("disk_backend") or {}
GB = 1 << 30


def used(directory):
    paths = (entry.path for entry in os.scandir(directory) if entry.is_file())
    return sum(os.path.getsize(path) for path in paths)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("goodbye")))
who = [os.environ["LMCACHE_RUNTIME_PLUGIN_" + x] for x in ("ROLE", "WORKER_ID", "WORKER_COUNT")]
print("hello from {} {} of {} workers".format(*who))
local = CONFIG.get("local_disk")
local or print("LMCache has no 'local_disk': looking again after a restart")
directory = (local or "/tmp").removeprefix("file://")
while True:
    if local and os.path.isdir(directory):  # LMCache creates it with the first entry
        disk, cached = shutil.disk_usage(directory), used(directory)
        limit = CONFIG.get("max_local_disk_size") or disk.total / GB
        percent = max(cached / GB / limit, 1 - disk.free / disk.total) * 100
        level = "<4>" if percent >= PARAMETERS.get("warn_percent", 90) else ""
        print(f"{level}{directory}: {cached / GB:.1f} of {limit:.0f} GB, {percent:.0f} % full")
    time.sleep(PARAMETERS.get("interval", 60))
