#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Logs once a minute that its process is alive.
trap 'echo goodbye; exit 0' TERM
while :; do
    echo "$LMCACHE_RUNTIME_PLUGIN_ROLE is alive"
    sleep 60 &
    wait $!
done
