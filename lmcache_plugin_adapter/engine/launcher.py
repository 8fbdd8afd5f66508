"""Launch the runtime plugins of one engine process, and see that they never outlive it."""

from __future__ import annotations

import atexit
import importlib.util
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

from lmcache_plugin_adapter.contract.identity import ProcessIdentity, Role
from lmcache_plugin_adapter.contract.launch_spec import LaunchSpec
from lmcache_plugin_adapter.contract.run_token import new_run_id
from lmcache_plugin_adapter.contract.wire import CLIENT
from lmcache_plugin_adapter.linux.descriptor_passing import send_descriptor

from . import exit_of_pid1 as pid1
from .supervisor_connection import LaunchError, supervisor_python
from .supervisor_keeper import Run, say_exit, stop_all

__all__ = ["LaunchError", "RuntimePluginLauncher"]

logger = logging.getLogger(__name__)

_STATUS_SECONDS = 2.0


class RuntimePluginLauncher:
    """Run the plugins that a configuration names, under a supervisor process.

    Takes the place of LMCache's launcher of the same name. Plugins stop when
    :meth:`stop_plugins` is called or this process ends, however it ends.

    Args:
        config: Anything with ``runtime_plugin_locations`` and ``to_json()``,
            such as LMCache's ``LMCacheEngineConfig``.
        role: ``scheduler``, ``worker`` or ``server`` in any case, an enum with
            such a name, or None: then files are not filtered by their names.
        worker_count: Workers of the replica.
        worker_id: Rank in the replica; not looked at for the scheduler, whose
            plugins see -1.
        dp_rank: Index of the data-parallel replica.
        dp_size: Number of data-parallel replicas.
        engine_pid: What plugins are told is their engine, where this process
            only stands for it; None: this process. They live as long as this
            process does.

    Raises:
        ValueError: ``role`` names no role.
    """

    def __init__(
        self,
        config: Any,
        role: object,
        worker_count: int,
        worker_id: int,
        *,
        dp_rank: int = 0,
        dp_size: int = 1,
        engine_pid: int | None = None,
    ) -> None:
        self.config = config
        self.role = role
        self.worker_count = worker_count
        self.worker_id = worker_id
        read = Role.read(role)
        self.identity = ProcessIdentity(
            role=read,
            worker_id=-1 if read is Role.SCHEDULER else worker_id,
            worker_count=worker_count,
            dp_rank=dp_rank,
            dp_size=dp_size,
        )
        self._engine_pid = engine_pid
        self._run: Run | None = None

    def launch_plugins(self) -> bool:
        """Start the plugins; returns at once, before they are even looked for.

        Starts nothing where no location is configured, where
        ``extra_config.runtime_plugins.enabled`` is false, or where this
        process runs the plugins of this role already.

        Returns:
            False if no supervisor could be started; an error record says why.
        """
        try:
            self.launch()
        except LaunchError as error:
            logger.error("Cannot launch runtime plugins: %s", error)  # noqa: TRY400
            return False
        return True

    def launch(self) -> None:
        """Do what :meth:`launch_plugins` does, for a caller with another way to go on.

        Raises:
            LaunchError: No supervisor could be started.
        """
        section = _section(self.config)
        locations = getattr(self.config, "runtime_plugin_locations", None)
        if section.get("enabled") is False or not (locations or section.get("locations")):
            return
        try:
            run = self._new_run(locations, section)
            if not run.begin():
                logger.debug("Runtime plugins of %s run already", self.identity.label)
                return
        except LaunchError:
            raise
        except Exception as error:
            raise LaunchError(f"cannot launch runtime plugins: {error!r}") from error
        self._run = run
        _say_exit_at_exit()
        if os.getpid() == 1:
            pid1.wait_at_exit()
            atexit.unregister(stop_all)
            atexit.register(stop_all)  # runs first: exit handlers run in reverse

    def stop_plugins(self, wait: bool = True, timeout: float | None = None) -> None:
        """Stop the plugins: SIGTERM, their grace period, SIGKILL. Never raises; idempotent.

        Args:
            wait: Return when all are gone, or when the longest grace period
                is over; otherwise at once, and the supervisor sees to the end.
            timeout: Wait so many seconds at most, whatever the grace period.
        """
        if self._run is not None:
            self._run.stop(wait, timeout)

    def status(self, timeout: float = _STATUS_SECONDS) -> dict[str, Any] | None:
        """Return what the supervisor says of its plugins; None if none answers.

        The shape is that of ``lmcache-plugins status --json`` for one
        supervisor.

        Args:
            timeout: Seconds to wait for the whole answer.
        """
        link = self._run.link if self._run is not None else None
        if link is None:
            return None
        deadline = time.monotonic() + timeout
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            return None
        with ours:
            try:
                with theirs:
                    send_descriptor(link.connection, CLIENT, theirs.fileno())
                ours.sendall(b'{"op": "status"}\n', socket.MSG_NOSIGNAL)
                data = b""
                while not data.endswith(b"\n"):
                    ours.settimeout(max(deadline - time.monotonic(), 0.001))
                    part = ours.recv(1 << 16)
                    if not part:
                        return None
                    data += part
            except OSError:
                return None
        answer: dict[str, Any] = json.loads(data)
        return answer

    # --- inside -----------------------------------------------------------

    def _new_run(self, locations: object, section: Mapping[str, Any]) -> Run:
        python = supervisor_python()
        run_id = new_run_id()
        config_json, notes = _config_json(self.config)
        who = self.identity
        if who.role is Role.WORKER and not 0 <= who.worker_id < who.worker_count:
            text = (
                f"This is worker {who.worker_id} of {who.worker_count}: ids are 0 to the count - 1"
            )
            notes = (*notes, ("warning", text))
        spec = LaunchSpec(
            identity=self.identity,
            locations=locations,
            config_json=config_json,
            engine_pid=self._engine_pid or os.getpid(),
            run_id=run_id,
            python=python,
            notes=notes,
            metrics_module=_metrics_module() if section.get("metrics") is True else "",
            import_path=tuple(entry for entry in sys.path if isinstance(entry, str)),
        )
        return Run(spec.to_bytes(), run_id, self.identity.label, python)


def _say_exit_at_exit() -> None:
    """Have this process say so when it exits by itself, rather than being killed."""
    atexit.unregister(say_exit)
    atexit.register(say_exit)
    # The children of multiprocessing, as vLLM's engine processes are, have exit handlers of
    # their own; exactly they have a parent process there.
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        util.Finalize(None, say_exit, exitpriority=0)


def _section(config: object) -> Mapping[str, Any]:
    """Return ``extra_config.runtime_plugins`` as far as the engine must know it."""
    extra = getattr(config, "extra_config", None)
    section = extra.get("runtime_plugins") if isinstance(extra, Mapping) else None
    return section if isinstance(section, Mapping) else {}


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


def _config_json(config: Any) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Return the configuration as JSON; where it cannot say it, what plugins need most."""
    try:
        text = config.to_json()
        if not isinstance(text, str):
            raise TypeError(f"to_json() returned {type(text).__name__}, not str")  # noqa: TRY301
    except Exception as error:  # noqa: BLE001 - whatever a foreign configuration raises
        keys = ("runtime_plugin_locations", "extra_config")
        text = json.dumps({key: getattr(config, key, None) for key in keys}, default=str)
        note = (
            f"Cannot turn LMCache's configuration into JSON: {error!r}; "
            "plugins get runtime_plugin_locations and extra_config only"
        )
        return text, (("warning", note),)
    return text, ()
