# SPDX-License-Identifier: Apache-2.0
"""The alert reporter measures its engine process and sends alerts to Alertmanager and webhooks.

Runs in a process of its own beside each engine process, with one thread for each target.
Imports the kit, ``linux``, and of the gallery ``engine_health``, ``http_client``, ``state_file``.
"""

from __future__ import annotations

from lmcache_plugin_adapter import kit

__plugin_settings__ = "lmcache_plugin_adapter.gallery.alert_reporter.settings:AlertSettings"
"""The type of its settings, for ``lmcache-plugins check``."""


def main() -> int:
    """Run the plugin and return its exit code."""
    return kit.run(_main)


def _main(ctx: kit.Context, stop: kit.Stop) -> int:
    from .reporter import report  # late: ``kit.run`` reports a missing library in one line

    return report(ctx, stop)
