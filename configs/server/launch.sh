#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The one plugin that LMCache's own launcher is to start, where its server takes
# no --server-module (LMCache 0.4.4 to 0.5.5): it runs all others, supervised.
# $PPID is the server; the first word of its command is the Python that has LMCache.
python=$(tr '\0' '\n' <"/proc/$PPID/cmdline" | head -n 1)
exec "$python" -m lmcache_plugin_adapter.server_plugin "$PPID"
