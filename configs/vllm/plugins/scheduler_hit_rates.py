#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reports on the scheduler the hit rates of vLLM's prefix cache and of LMCache.

extra_config: {hit_rates: {url: "http://localhost:8000/metrics", interval: 60, warn_percent: 10}}
"""

import json
import os
import re
import signal
import sys
import time
import urllib.request

CONFIG = json.loads(os.environ["LMCACHE_RUNTIME_PLUGIN_CONFIG"])
PARAMETERS = (CONFIG.get("extra_config") or {}).get("hit_rates") or {}
URL = PARAMETERS.get("url", "http://localhost:8000/metrics")


def total(metrics, name):
    values = re.findall(rf"^vllm:{name}_total(?:{{.*}})? (\S+)$", metrics, re.MULTILINE)
    return sum(map(float, values))


signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("goodbye")))
who = [os.environ["LMCACHE_RUNTIME_PLUGIN_" + x] for x in ("ROLE", "WORKER_ID", "WORKER_COUNT")]
print("hello from {} {} of {} workers".format(*who))
while True:
    try:
        metrics = urllib.request.urlopen(URL, timeout=5).read().decode()
        for cache, name in ("vLLM", "prefix_cache"), ("LMCache", "external_prefix_cache"):
            tokens, hits = total(metrics, f"{name}_queries"), total(metrics, f"{name}_hits")
            level = "<4>" if hits * 100 < tokens * PARAMETERS.get("warn_percent", 0) else ""
            print(f"{level}{cache}: {hits:.0f} of {tokens:.0f} tokens found")
    except OSError as error:
        print(f"{URL} does not answer: {error}")
    time.sleep(PARAMETERS.get("interval", 60))
