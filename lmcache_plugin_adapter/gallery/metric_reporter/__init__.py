"""Metric reporter: sends an engine's Prometheus metrics to where they are kept.

Reads them from LMCache's internal API of its own engine process, or on the
scheduler from vLLM's ``/metrics``, and sends them to a Pushgateway, to whatever
takes Prometheus' remote write, and to whatever takes OTLP.
"""

from __future__ import annotations

from lmcache_plugin_adapter import kit


def main() -> int:
    """Run the plugin and return its exit code."""
    from .reporter import report  # the libraries only where there is an engine to report on

    return kit.run(report)


__all__ = ["main"]
