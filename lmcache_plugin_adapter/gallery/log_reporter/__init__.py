# SPDX-License-Identifier: Apache-2.0
"""The log reporter follows the engine's log files and delivers records to syslog, Loki or OTLP.

Runs in a process of its own beside the scheduler, with one thread for each target. Each target
reads the files itself and stores its position once it has confirmed the records; the file is the
buffer. Imports the kit, and of the gallery ``http_client``, ``state_file`` and
``otlp_attributes``.
"""

from __future__ import annotations

from lmcache_plugin_adapter import kit

__plugin_settings__ = "lmcache_plugin_adapter.gallery.log_reporter.settings:LogReporterSettings"
"""The type of its settings, for ``lmcache-plugins check``."""


def main() -> int:
    """Run the plugin and return its exit code."""
    return kit.run(_main)


def _main(ctx: kit.Context, stop: kit.Stop) -> int:
    from .reporter import report  # late: ``kit.run`` reports a missing library in one line

    return report(ctx, stop)
