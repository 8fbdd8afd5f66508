# SPDX-License-Identifier: Apache-2.0
"""The supervisor's files in the runtime directory, made again after a removal.

Cleaners of temporary files and careless plugins remove them. Without these files,
commands would find no supervisor and report that nothing runs.
"""

from __future__ import annotations

import os

from lmcache_plugin_adapter.contract import variables
from lmcache_plugin_adapter.contract.backoff import backoff_delay
from lmcache_plugin_adapter.contract.log_records import WARNING
from lmcache_plugin_adapter.contract.runtime_dir import (
    CONFIG_NAME,
    CONTROL_SOCKET,
    DIRECTORY_VARIABLE,
    InstanceDir,
    candidates,
    is_users_directory,
    make_users_directory,
    open_root,
    write_whole,
)
from lmcache_plugin_adapter.linux.descriptor_identity import identity_of
from lmcache_plugin_adapter.linux.syscalls import removal_descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lmcache_plugin_adapter.contract.planned_plugin import SupervisorPlan
    from lmcache_plugin_adapter.linux.event_loop import Timer
    from lmcache_plugin_adapter.supervisor.control.server import ControlServer

    from .operator_stops import OperatorStops
    from .services import Services

_CONFIG_FILE, _ENDING_FILE = variables.CONFIG_FILE.encode(), variables.ENDING_FILE.encode()

_SETTLE_SECONDS = 0.1
"""Pause before the files are checked: a cleaner that removes one may remove more, or replace it."""

_RETRY_MAX = 60.0


class RuntimeFiles:
    """Own the directory, the control socket and the configuration of one supervisor.

    Args:
        services: The loop and the log.
        control: The server of the control socket.
        stops: What operators have stopped.
        run_id: The run token.
    """

    def __init__(
        self, services: Services, control: ControlServer, stops: OperatorStops, run_id: str
    ) -> None:
        self._services = services
        self._control = control
        self._stops = stops
        self._run_id = run_id
        self.instance: InstanceDir | None = None
        """The directory; None if there is no usable one."""
        self._config = -1
        self._user_files: dict[bytes, dict[bytes, tuple[int, int]]] = {
            _CONFIG_FILE: {},
            _ENDING_FILE: {},
        }
        """The paths of files for plugins of other users, and their users and groups."""
        self._removals = -1
        self._timer: Timer | None = None
        self._attempt = 0
        self._unrecorded: list[int] = []
        self._lost: set[bytes] = set()
        """Files that could not be made again with the directory: they are not tried once more."""

    def open(self) -> None:
        """Create the files, or log why that is not possible."""
        problem = self._create()
        if problem is not None:
            self._log(
                "No usable runtime directory, so no control socket and no "
                f"LMCACHE_RUNTIME_PLUGIN_CONFIG_FILE; plugins run without them ({problem})"
            )

    def keep_config(self) -> None:
        """Keep the configuration that a search has written, to write it again."""
        if self.instance is None:
            return
        try:
            fd = os.open(self.instance.file(CONFIG_NAME), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return  # it could not be written
        if self._config >= 0:
            os.close(self._config)
        self._config = fd

    def keep_user_files(self, plan: SupervisorPlan) -> None:
        """Keep the paths of the files that a search has written for plugins of other users."""
        for plugin in plan.plugins:
            for name, files in self._user_files.items():
                if plugin.credentials is not None and name in plugin.environment:
                    files[plugin.environment[name]] = plugin.credentials[:2]

    def write_exit_reason(self, reason: str) -> None:
        """Write the reason for the end, for plugins."""
        if self.instance is not None:
            if self._missing(self.instance):
                self._restore(self.instance)
            self.instance.write_exit_reason(reason)
        for path in self._user_files[_ENDING_FILE]:
            try:
                write_whole(os.fsdecode(path), f"{reason}\n".encode())
                os.chmod(path, 0o644)
            except OSError:
                continue  # a full disk: plugins find no file

    def remove(self) -> None:
        """Remove all files."""
        for path in set().union(*self._user_files.values()):
            try:
                os.unlink(path)
                os.rmdir(os.path.dirname(path))
            except OSError:
                continue  # other files are still in the directory
        if self.instance is not None:
            self.instance.remove()

    # --- inside -------------------------------------------------------------

    def _create(self) -> str | None:
        """Create the directory and what is in it; return why that is not possible."""
        problems: dict[str, str] = {}
        while True:
            root, reasons = open_root(os.environ, problems)
            if root is None:
                return "; ".join((*problems.values(), *reasons))
            instance = None
            try:
                instance = InstanceDir(root, self._run_id, self._services.file_label)
                self._control.listen(instance.path, CONTROL_SOCKET)
                if self._config >= 0:
                    write_whole(instance.file(CONFIG_NAME), self._config_text())
            except OSError as error:  # no space or no inodes, for example: the next one may do
                if instance is not None:
                    instance.remove()
                problems[root] = f"'{root}': {error.strerror}"
            else:
                break
        if self.instance is not None:
            instance.replace(self.instance)
        elif os.environ.get(DIRECTORY_VARIABLE):
            chosen = f"'{candidates(os.environ)[0]}':"
            for problem in (*problems.values(), *reasons):
                if problem.startswith(chosen):
                    self._log(f"{DIRECTORY_VARIABLE}: cannot use {problem}; using '{root}' instead")
        self.instance = instance
        self._services.instance = instance
        self._services.record = self._record_soon
        instance.record(self._services.reaper.first_processes)
        self._stops.keep_in(instance)
        self.keep_config()
        for path, make_again in list(self._services.sockets.items()):
            if not os.path.lexists(path):
                self._services.loop.attempt(make_again)
        self._make_user_files()
        self._watch(instance)
        return None

    def _make_user_files(self) -> None:
        for path, owner in self._user_files[_CONFIG_FILE].items():
            directory = os.path.dirname(path)
            try:
                make_users_directory(directory)
                if not os.path.lexists(path) and is_users_directory(directory):
                    write_whole(os.fsdecode(path), self._config_text())
                    os.chown(path, *owner)
            except OSError:
                continue  # a full disk: plugins find no file

    def _config_text(self) -> bytes:
        return os.pread(self._config, os.fstat(self._config).st_size, 0)

    def _record_soon(self, pid: int) -> None:
        """Record a process before its start is logged; one write for all that start now."""
        if not self._unrecorded:
            self._services.loop.call_soon(self._record)
        self._unrecorded.append(pid)

    def _record(self) -> None:
        pids, self._unrecorded = self._unrecorded, []
        if self.instance is not None:
            self.instance.record(pids)

    def _watch(self, instance: InstanceDir) -> None:
        """Have the kernel report what is removed; without that, nothing is made again."""
        if self._removals >= 0:
            self._services.loop.unwatch(self._removals)
            os.close(self._removals)
        path = instance.path
        try:
            self._removals = removal_descriptor(os.path.dirname(path), path)
        except OSError:
            self._removals = -1
            return
        self._services.loop.watch(self._removals, self._removed)

    def _removed(self) -> None:
        try:
            os.read(self._removals, 1 << 16)
        except BlockingIOError:
            return
        if self._timer is None:
            self._check_in(_SETTLE_SECONDS)

    def _check_in(self, delay: float) -> None:
        self._timer = self._services.loop.call_later(delay, self._check)

    def _check(self) -> None:
        self._timer = None
        instance = self.instance
        if self._services.stopping or instance is None:
            return
        if not self._missing(instance):
            self._attempt = 0
        elif not self._restore(instance):
            self._attempt += 1
            self._check_in(backoff_delay(self._attempt, 1.0, _RETRY_MAX))

    def _missing(self, instance: InstanceDir) -> bool:
        """Whether a file is not there, or the directory not the one that this supervisor made."""
        try:
            found = os.lstat(instance.path)
        except OSError:
            return True
        is_same = (found.st_dev, found.st_ino) == identity_of(instance.fd)
        return not is_same or not self._lost.issuperset(self._absent(instance))

    def _absent(self, instance: InstanceDir) -> list[bytes]:
        """Return the files that are not there."""
        names = [CONTROL_SOCKET, *([CONFIG_NAME] if self._config >= 0 else [])]
        paths = [os.fsencode(instance.file(name)) for name in names]
        paths += [*map(os.fsencode, self._services.sockets), *self._user_files[_CONFIG_FILE]]
        return [path for path in paths if not os.path.lexists(path)]

    def _restore(self, instance: InstanceDir) -> bool:
        path = instance.path
        problem = self._create()
        if problem is None and self.instance is not None:
            again = self.instance.path
            self._lost = {*self._absent(self.instance)}
            self._log(f"Somebody removed '{path}' or files in it: made again as '{again}'")
        elif not self._attempt:
            self._log(
                f"Somebody removed '{path}' or files in it, and they cannot be made again: no "
                f"command reaches this supervisor until they can ({problem})"
            )
        return problem is None

    def _log(self, text: str) -> None:
        self._services.events.log(WARNING, text)
