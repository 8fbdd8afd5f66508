# SPDX-License-Identifier: Apache-2.0
"""Become a supervisor, if the engine runs the version that is installed now.

The engine runs this file by path with ``python -I -S``, so that nothing of its
site-packages or environment is loaded. Python compiles such a file at each start, which
takes time and memory: so the rest is in :mod:`.main`, which it takes from its cache.
"""

from __future__ import annotations

import os
import sys


def check_version(engine_version: str, run_id: str) -> None:
    """Exit if the engine runs another version of this package than the one installed now.

    The package was replaced while the engine ran, so that the handover may differ. What a
    killed supervisor left is still killed: no other supervisor comes.
    """
    from lmcache_plugin_adapter.contract.version import (
        VERSION_DIFFERS_CODE,
        __version__,
        why_versions_differ,
    )

    why = why_versions_differ(engine_version, __version__)
    if why is not None:
        os.write(2, f"Cannot start a supervisor of runtime plugins: {why}\n".encode())
        try:
            from lmcache_plugin_adapter.supervisor.processes.orphans import kill_left

            kill_left(run_id, ())
        except Exception:  # noqa: BLE001, S110 - best effort
            pass
        sys.exit(VERSION_DIFFERS_CODE)


def main(argv: list[str]) -> None:
    """Run a supervisor; ``argv`` comes from :meth:`.SupervisorStart.start`."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path.append(os.path.dirname(package))
    check_version(argv[1], argv[-2])
    from lmcache_plugin_adapter.supervisor.main import run_supervisor

    run_supervisor(argv)


if __name__ == "__main__":
    main(sys.argv)
