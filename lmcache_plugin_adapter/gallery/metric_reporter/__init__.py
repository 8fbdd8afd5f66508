# SPDX-License-Identifier: Apache-2.0
"""The metric reporter sends its engine's Prometheus metrics to Pushgateway, remote write or OTLP.

Runs in a process of its own beside each engine process, with one thread for each target.
Imports the kit, ``configuration``, and of the gallery ``http_client``, ``otlp_attributes``.
"""

from __future__ import annotations

from lmcache_plugin_adapter import kit

__plugin_settings__ = "lmcache_plugin_adapter.gallery.metric_reporter.settings:MetricReporter"
"""The type of its settings, for ``lmcache-plugins check``."""


def main() -> int:
    """Run the plugin and return its exit code."""
    return kit.run(_main)


def _main(ctx: kit.Context, stop: kit.Stop) -> int:
    from .reporter import report  # late: ``kit.run`` reports a missing library in one line

    return report(ctx, stop)
