"""The alert reporter: measures its engine process and tells Alertmanager and webhooks."""

from __future__ import annotations

from lmcache_plugin_adapter import kit


def main() -> int:
    """Run the plugin; return its exit code."""
    return kit.run(_main)


def _main(ctx: kit.Context, stop: kit.Stop) -> int:
    from .reporter import report  # here, where a library that is missing is one line

    return report(ctx, stop)
