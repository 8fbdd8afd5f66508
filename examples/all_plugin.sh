#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs on the scheduler and on every worker: reports the memory of its engine.
#
# Its parameters stand in lmcache.yaml under extra_config:
#
#     all_plugin: {interval: 5, warn_mb: 2048}

parameter() { # NAME DEFAULT; python3 is the Python that runs the engine
    python3 -c 'import json, os, sys
config = json.loads(os.environ["LMCACHE_RUNTIME_PLUGIN_CONFIG"])
parameters = (config.get("extra_config") or {}).get("all_plugin") or {}
print(parameters.get(sys.argv[1], sys.argv[2]))' "$1" "$2"
}

goodbye() {
    kill "$sleeper" 2>/dev/null # leave nothing behind
    echo goodbye
    exit 0
}
trap goodbye TERM

interval=$(parameter interval 5)
warn_mb=$(parameter warn_mb 2048)
engine=$LMCACHE_RUNTIME_PLUGIN_ENGINE_PID
id="$LMCACHE_RUNTIME_PLUGIN_ROLE $LMCACHE_RUNTIME_PLUGIN_WORKER_ID"
echo "hello from $id of $LMCACHE_RUNTIME_PLUGIN_WORKER_COUNT workers"
while memory=$(awk '/^VmRSS:/ { print int($2 / 1024) }' "/proc/$engine/status"); do
    level=
    [ "$memory" -le "$warn_mb" ] || level='<4>' # a warning in the engine's log
    echo "${level}engine process $engine holds $memory MB"
    sleep "$interval" & # in the background, so that the trap need not wait for it
    sleeper=$!
    wait "$sleeper" 2>/dev/null # which would say how the sleep ended
done
