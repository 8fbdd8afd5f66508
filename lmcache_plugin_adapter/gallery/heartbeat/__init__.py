"""Heartbeat: registers an engine that works in etcd, in Consul, at a URL; and no other engine."""

from __future__ import annotations

from lmcache_plugin_adapter import kit

__all__ = ["main"]


def main() -> int:
    """Run the plugin; the entry point ``scheduler_heartbeat``."""
    return kit.run(_main)


def _main(ctx: kit.Context, stop: kit.Stop) -> int:
    from .program import run  # here, where a library that is missing is one line

    return run(ctx, stop)
