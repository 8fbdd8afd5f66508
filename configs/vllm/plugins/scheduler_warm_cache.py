#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Sends prompts once, so that LMCache has their KV cache (of whole chunks: see chunk_size).

extra_config: {warm_cache: {url: "http://localhost:8000", prompts: ["You are helpful."]}}
"""

import json
import os
import signal
import sys
import time
import urllib.request

CONFIG = json.loads(os.environ["LMCACHE_RUNTIME_PLUGIN_CONFIG"])
PARAMETERS = (CONFIG.get("extra_config") or {}).get("warm_cache") or {}
URL = PARAMETERS.get("url", "http://localhost:8000")


def ask(path, body=None):
    data = body and json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("goodbye")))
who = [os.environ["LMCACHE_RUNTIME_PLUGIN_" + x] for x in ("ROLE", "WORKER_ID", "WORKER_COUNT")]
print("hello from {} {} of {} workers".format(*who))
prompts = PARAMETERS.get("prompts", [])
prompts or print("<4>No 'extra_config.warm_cache.prompts': nothing to send")
while prompts:
    try:
        model = ask("/v1/models")["data"][0]["id"]
        ask("/v1/completions", {"model": model, "prompt": prompts[0], "max_tokens": 1})
        print(f"sent a prompt of {len(prompts.pop(0))} characters")
    except OSError as error:
        print(f"{URL} does not answer yet: {error}")
        time.sleep(5)
