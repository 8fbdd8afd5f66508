# SPDX-License-Identifier: Apache-2.0
"""The launcher for an LMCache that lets an installed package provide one.

No LMCache release does: docs/contributing/upstream has the patch. With such an LMCache the
adapter patches nothing. Entry point of the group ``lmcache.runtime_plugin_launchers``.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any

from lmcache_plugin_adapter.contract.engine_settings import settings_section
from lmcache_plugin_adapter.engine.launcher import (
    PLUGIN_LOGGER,
    LaunchError,
    RuntimePluginLauncher,
)

from . import vllm

STOP_SECONDS = 2.0
"""How long LMCache's shutdown waits for the plugins; the supervisor finishes the stop."""

_log = logging.getLogger("lmcache.lmcache_plugin_adapter")


def create_launcher(
    config: Any, role: object, worker_count: int, worker_id: int
) -> ChosenLauncher | None:
    """Return this package's launcher, or None to leave the plugins to LMCache's launcher.

    Args:
        config: LMCache's configuration of the process.
        role: ``scheduler``, ``worker``, or None in the multiprocess server.
        worker_count: The number of workers, as LMCache counts them.
        worker_id: The id of this worker.
    """
    if settings_section(getattr(config, "extra_config", None)).get("enabled") is False:
        return None
    logger = PLUGIN_LOGGER if role is None else vllm.PLUGIN_LOGGER
    return ChosenLauncher(config, role, worker_count, worker_id, plugin_logger=logger)


class ChosenLauncher(RuntimePluginLauncher):
    """Runs the plugins under supervision, or by LMCache's own launcher if that fails."""

    _builtin: Any = None

    def launch_plugins(self) -> bool:
        """Start the plugins and never raise; return whether they are supervised."""
        try:
            self.launch_or_raise()
        except LaunchError as error:
            _log.error(
                "Cannot start runtime plugins: %s; LMCache's own launcher starts them, without "
                "supervision",
                error,
            )
            module = importlib.import_module("lmcache.v1.plugin.runtime_plugin_launcher")
            self._builtin = module.RuntimePluginLauncher(
                self.config, self.role, self.worker_count, self.worker_id
            )
            self._builtin.launch_plugins()
            return False
        return True

    def stop_plugins(self, wait: bool = True, timeout: float | None = STOP_SECONDS) -> None:
        """Stop the plugins when LMCache stops its services."""
        if self._builtin is not None:
            self._builtin.stop_plugins()
        super().stop_plugins(wait, timeout)
