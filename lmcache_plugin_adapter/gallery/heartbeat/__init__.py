"""Heartbeat: registers an engine that works in etcd, in Consul, at a URL; and no other engine."""

from __future__ import annotations

__all__ = ["main"]


def main() -> int:
    """Run the plugin; the entry point ``scheduler_heartbeat``."""
    from lmcache_plugin_adapter import kit

    from .program import run

    return kit.run(run)
