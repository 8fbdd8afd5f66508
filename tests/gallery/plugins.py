# SPDX-License-Identifier: Apache-2.0
"""The entry points of the gallery's plugins, for ``run_plugin``."""

HEARTBEAT = "lmcache_plugin_adapter.gallery.heartbeat:main"
LOG_REPORTER = "lmcache_plugin_adapter.gallery.log_reporter:main"
METRIC_REPORTER = "lmcache_plugin_adapter.gallery.metric_reporter:main"
