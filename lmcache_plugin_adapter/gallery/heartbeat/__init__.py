# SPDX-License-Identifier: Apache-2.0
"""The heartbeat registers its engine in etcd, in Consul or at a URL while the engine works.

Runs in a process of its own beside the scheduler, with one thread for each target. Imports the
kit, ``linux``, and of the gallery ``engine_health`` and ``http_client``.
"""

from __future__ import annotations

from lmcache_plugin_adapter import kit

__plugin_settings__ = "lmcache_plugin_adapter.gallery.heartbeat.settings:Heartbeat"
"""The type of its settings, for ``lmcache-plugins check``."""


def main() -> int:
    """Run the plugin and return its exit code."""
    return kit.run(_main)


def _main(ctx: kit.Context, stop: kit.Stop) -> int:
    from .program import run  # late: ``kit.run`` reports a missing library in one line

    return run(ctx, stop)
