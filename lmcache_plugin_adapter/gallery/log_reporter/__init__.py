"""Follow the engine's log files and deliver their records to syslog, Loki or OTLP.

Each target reads the files on its own and remembers its own place; a place moves on only when
the target has confirmed what stood before it. The file is the buffer: in memory is one batch.
"""

from __future__ import annotations


def main() -> int:
    """Run the plugin (entry point ``lmcache.runtime_plugins``) and return its exit code."""
    from .run import main as run

    return run()
