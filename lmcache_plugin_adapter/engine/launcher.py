# SPDX-License-Identifier: Apache-2.0
"""Launch the runtime plugins of one engine process, and stop them with it."""

from __future__ import annotations

import atexit
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lmcache_plugin_adapter.contract.engine_settings import (
    SETTINGS_KEY,
    settings_section,
    why_engine_runs_nothing,
)
from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.contract.launch_spec import LaunchSpec
from lmcache_plugin_adapter.contract.run_token import new_run_id
from lmcache_plugin_adapter.linux.supported import why_unsupported

from . import exit_of_pid1
from .supervisor_keeper import SupervisorKeeper, report_exit, stop_all
from .supervisor_start import LaunchError, SupervisorStart, supervisor_python

if TYPE_CHECKING:
    from .host_configuration import HostConfiguration

__all__ = ["LaunchError", "RuntimePluginLauncher"]

logger = logging.getLogger(__name__)

PLUGIN_LOGGER = "lmcache_plugins"
"""The logger of plugins' records (``log: logging``), unless the host has one for them."""

_STATUS_SECONDS = 2.0
_MOST_SECONDS = 1e6  # poll(2) counts milliseconds in 31 bits


class RuntimePluginLauncher:
    """Run the plugins that a configuration names, under a supervisor process.

    The class replaces LMCache's launcher of the same name and has the same
    constructor. :meth:`for_identity` is the constructor for new hosts. Plugins
    stop when :meth:`stop_plugins` is called, or when this process ends in any way.

    Args:
        config: LMCache's ``LMCacheEngineConfig``, or any other
            :class:`~.engine.host_configuration.HostConfiguration`.
        role: ``scheduler``, ``worker`` or ``server`` in any case, an enum member with
            such a name, or None: then the launcher does not filter files by their names.
        worker_count: Number of workers in the replica.
        worker_id: Rank of this worker in the replica. The launcher ignores it for the
            scheduler, whose plugins get -1.
        dp_rank: Index of the data-parallel replica.
        dp_size: Number of data-parallel replicas.
        engine_pid: The process that plugins get as their engine, if this process only
            stands for it; None: this process. The plugins' life depends on this process.
        plugin_logger: The logger of plugins' records with ``log: logging``: a name to which
            the host's logging configuration applies.

    Raises:
        ValueError: ``role`` names no role.
    """

    def __init__(
        self,
        config: HostConfiguration,
        role: object,
        worker_count: int,
        worker_id: int,
        *,
        dp_rank: int = 0,
        dp_size: int = 1,
        engine_pid: int | None = None,
        plugin_logger: str = PLUGIN_LOGGER,
    ) -> None:
        self.config = config
        self.role = role
        self.worker_count = worker_count
        self.worker_id = worker_id
        known = Role.read(role)
        self.identity = ProcessIdentity(
            role=known,
            worker_id=-1 if known is Role.SCHEDULER else worker_id,
            worker_count=worker_count,
            dp_rank=dp_rank,
            dp_size=dp_size,
        )
        self._engine_pid = engine_pid
        self.plugin_logger = plugin_logger
        self._keeper: SupervisorKeeper | None = None

    @classmethod
    def for_identity(
        cls,
        config: HostConfiguration,
        identity: ProcessIdentity,
        *,
        engine_pid: int | None = None,
        plugin_logger: str = PLUGIN_LOGGER,
    ) -> RuntimePluginLauncher:
        """Return a launcher for the process that ``identity`` describes.

        Args:
            config: As for the class.
            identity: Role, rank and replica of the engine process.
            engine_pid: As for the class.
            plugin_logger: As for the class.
        """
        return cls(
            config,
            identity.role,
            identity.worker_count,
            identity.worker_id,
            dp_rank=identity.dp_rank,
            dp_size=identity.dp_size,
            engine_pid=engine_pid,
            plugin_logger=plugin_logger,
        )

    def launch_plugins(self) -> bool:
        """Start the plugins and never raise; for hosts with no other way to run them.

        The method returns before the supervisor has searched the locations. It starts
        nothing if no location is configured, or if ``extra_config.runtime_plugins.enabled``
        is false. If this process already runs the plugins of this identity for another
        engine, they serve both, and stop with the last launcher.

        Returns:
            False if no supervisor could be started; an error record gives the reason.
        """
        try:
            self.launch_or_raise()
        except LaunchError as error:
            logger.error("Cannot launch runtime plugins: %s", error)  # noqa: TRY400
            return False
        return True

    def launch_or_raise(self) -> None:
        """Start the plugins as :meth:`launch_plugins` does; for hosts with a fallback.

        Raises:
            LaunchError: No supervisor could be started.
        """
        try:
            extra_config = getattr(self.config, "extra_config", None)
            locations = getattr(self.config, "runtime_plugin_locations", None)
            if why_engine_runs_nothing(extra_config, locations):
                return
            keeper = self._new_keeper(locations, settings_section(extra_config))
            serving = keeper.begin(self)
            if serving is not keeper:
                self._report_joined(serving, keeper)
                self._keeper = serving
                return
        except LaunchError:
            raise
        except Exception as error:
            raise LaunchError(f"cannot launch runtime plugins: {error!r}") from error
        self._keeper = keeper
        _report_exit_at_exit()
        if os.getpid() == 1:
            exit_of_pid1.wait_at_exit()
            atexit.unregister(stop_all)
            atexit.register(stop_all)  # runs first: exit handlers run in reverse

    def stop_plugins(self, wait: bool = True, timeout: float | None = None) -> None:
        """Stop the plugins: SIGTERM, grace period, SIGKILL. Never raises; idempotent.

        If other launchers of this process use the plugins, they continue and stop with
        the last one.

        Args:
            wait: Return when no plugin is left, or after the longest grace period;
                otherwise return at once, and the supervisor finishes the stop.
            timeout: Wait at most so many seconds, even if the grace period is longer.
        """
        if self._keeper is not None:
            self._keeper.leave(self, wait, None if timeout is None else _seconds(timeout))

    def status(self, timeout: float = _STATUS_SECONDS) -> dict[str, Any] | None:
        """Return the supervisor's report on its plugins; None if no supervisor answers.

        The report is the control socket's answer to ``status``: the supervisor, its engine
        process, and its plugins with the fields of :class:`.PluginStatus`.

        Args:
            timeout: Seconds to wait for the whole answer.
        """
        if self._keeper is None:
            return None
        return self._keeper.ask({"op": "status"}, _seconds(timeout))

    # --- inside -----------------------------------------------------------

    def _report_joined(self, serving: SupervisorKeeper, own: SupervisorKeeper) -> None:
        """Log that another engine's plugins serve this one; warn if they differ from its own."""
        label = self.identity.label
        keys = sorted({*serving.choices, *own.choices})
        differing = [key for key in keys if serving.choices.get(key) != own.choices.get(key)]
        if serving is self._keeper or not differing:
            logger.debug("Runtime plugins of %s run already", label)
            return
        logger.warning(
            "Runtime plugins of %s already run for another engine of this process and serve "
            "both; what differs in this one has no effect: %s",
            label,
            ", ".join(differing),
        )

    def _new_keeper(self, locations: object, section: Mapping[str, Any]) -> SupervisorKeeper:
        why = why_unsupported()
        if why is not None:
            raise LaunchError(why)
        python = supervisor_python()
        run_id = new_run_id()
        config_json, notes = _config_json(self.config)
        identity = self.identity
        if identity.role is Role.WORKER and not 0 <= identity.worker_id < identity.worker_count:
            text = (
                f"This is worker {identity.worker_id} of {identity.worker_count}: "
                "ids are 0 to the count - 1"
            )
            notes = (*notes, ("warning", text))
        spec = LaunchSpec(
            identity=identity,
            locations=locations,
            config_json=config_json,
            engine_pid=self._engine_pid or os.getpid(),
            run_id=run_id,
            python=python,
            notes=notes,
            metrics_module=_metrics_module() if section.get("metrics") is True else "",
            import_path=tuple(entry for entry in sys.path if isinstance(entry, str)),
        )
        start = SupervisorStart(spec.to_bytes(), run_id, identity.label, python, self.plugin_logger)
        choices = {
            f"extra_config.{key}": value for key, value in _extra_config(self.config).items()
        }
        choices.pop(f"extra_config.{SETTINGS_KEY}", None)
        choices |= {f"extra_config.{SETTINGS_KEY}.{key}": value for key, value in section.items()}
        return SupervisorKeeper(start, {**choices, "runtime_plugin_locations": locations})


def _report_exit_at_exit() -> None:
    """Have the exit handlers of this process report an exit to its supervisors."""
    atexit.unregister(report_exit)
    atexit.register(report_exit)
    # The children of multiprocessing, as vLLM's engine processes are, have exit handlers of
    # their own; exactly they have a parent process there.
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, report_exit, exitpriority=0)


def _seconds(timeout: float) -> float:
    """Return a timeout that system calls accept; what is no number of seconds counts as 0."""
    try:
        return min(timeout, _MOST_SECONDS) if timeout > 0 else 0.0
    except TypeError:
        return 0.0


def _extra_config(config: object) -> Mapping[str, Any]:
    extra = getattr(config, "extra_config", None)
    return extra if isinstance(extra, Mapping) else {}


def _metrics_module() -> str:
    """Return the file of ``prometheus_client.mmap_dict``, for the supervisor; empty: none."""
    try:
        found = importlib.util.find_spec("prometheus_client")
    except (ImportError, ValueError):
        return ""
    for directory in (found and found.submodule_search_locations) or ():
        path = os.path.join(directory, "mmap_dict.py")
        if os.path.isfile(path):
            return path
    return ""


def _config_json(config: HostConfiguration) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return the configuration as JSON; if it cannot be encoded, the two keys plugins rely on."""
    try:
        text = config.to_json()
        if not isinstance(text, str):
            raise TypeError(f"to_json() returned {type(text).__name__}, not str")  # noqa: TRY301
    except Exception as error:  # noqa: BLE001 - a foreign configuration may raise anything
        keys = ("runtime_plugin_locations", "extra_config")
        text = json.dumps({key: getattr(config, key, None) for key in keys}, default=str)
        note = (
            f"Cannot turn LMCache's configuration into JSON: {error!r}; "
            "plugins get runtime_plugin_locations and extra_config only"
        )
        return text, (("warning", note),)
    return text, ()
