"""Metric reporter: sends an engine's Prometheus metrics to where they are kept.

Reads them from LMCache's internal API of its own engine process, or on the
scheduler from vLLM's ``/metrics``, and sends them to a Pushgateway, to whatever
takes Prometheus' remote write, and to whatever takes OTLP.
"""

from __future__ import annotations

from lmcache_plugin_adapter import kit


def main() -> int:
    """Run the plugin and return its exit code."""
    return kit.run(_main)


def _main(ctx: kit.Context, stop: kit.Stop) -> int:
    from .reporter import report  # here, where a library that is missing is one line

    return report(ctx, stop)


__all__ = ["main"]
