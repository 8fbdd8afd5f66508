"""Follow the engine's log files and deliver their records to syslog, Loki or OTLP.

Each target reads the files on its own and remembers its own place; a place moves on only when
the target has confirmed what stood before it. The file is the buffer: in memory is one batch.
"""

from __future__ import annotations

from lmcache_plugin_adapter import kit


def main() -> int:
    """Run the plugin (entry point ``lmcache.runtime_plugins``) and return its exit code."""
    return kit.run(_main)


def _main(ctx: kit.Context, stop: kit.Stop) -> int:
    from .reporter import report  # here, where a library that is missing is one line

    return report(ctx, stop)
