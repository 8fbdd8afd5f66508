#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs on worker 0 only: tests at an interval that the disk cache has room.
#
# Its parameters stand in lmcache.yaml under extra_config:
#
#     worker_0_test: {directory: /tmp, min_free_mb: 1024, interval: 5}
set -u

role=$LMCACHE_RUNTIME_PLUGIN_ROLE
id=$LMCACHE_RUNTIME_PLUGIN_WORKER_ID
count=$LMCACHE_RUNTIME_PLUGIN_WORKER_COUNT

# A shell reads JSON through a program: python3 is the Python that runs the engine.
read -r min_free_mb interval directory < <(python3 - <<'PYTHON'
import json, os
config = json.loads(os.environ["LMCACHE_RUNTIME_PLUGIN_CONFIG"])
own = (config.get("extra_config") or {}).get("worker_0_test") or {}
print(own.get("min_free_mb", 1024), own.get("interval", 5), own.get("directory", "/tmp"))
PYTHON
)

trap 'kill "$(jobs -p)" 2>/dev/null; echo goodbye; exit 0' TERM

echo "hello from $role $id of $count workers"
while true; do
    free_mb=$(($(stat --file-system --format='%a * %S' "$directory") / 1048576))
    if ((free_mb < min_free_mb)); then
        echo "<4>$directory has $free_mb MB free, less than $min_free_mb MB" # <4> is a warning
    else
        echo "$directory has $free_mb MB free"
    fi
    sleep "$interval" & # in the background, so that the trap need not wait for it
    wait $!
done
