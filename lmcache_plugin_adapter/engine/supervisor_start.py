# SPDX-License-Identifier: Apache-2.0
"""Start supervisors from the engine, in constant time for any memory and number of plugins.

Nothing here waits for the supervisor.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import socket
import subprocess
import sys
import tempfile

from lmcache_plugin_adapter.contract import wire
from lmcache_plugin_adapter.contract.runtime_dir import candidates, instance_path
from lmcache_plugin_adapter.contract.version import __version__
from lmcache_plugin_adapter.linux.procfs import memory_image, read_process
from lmcache_plugin_adapter.linux.syscalls import pidfd_open

from .supervisor_connection import SupervisorConnection
from .unpatched import unpatched

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

BOOTSTRAP = os.path.join(_PACKAGE, "supervisor", "bootstrap.py")
"""Started by its path, never imported."""


class LaunchError(Exception):
    """No supervisor could be started; the text gives the reason."""


class SupervisorStart:
    """All that a supervisor of this process is started with, as it is at the launch.

    The first supervisor inherits working directory and environment. One that replaces
    another gets the same, even if the engine has changed its own since.

    Args:
        spec: A launch spec, from :meth:`.contract.launch_spec.LaunchSpec.to_bytes`.
        run_id: The run token.
        label: The identity for people.
        python: The interpreter that runs supervisors.
        plugin_logger: The logger of plugins' records in this process.
    """

    def __init__(
        self, spec: bytes, run_id: str, label: str, python: str, plugin_logger: str
    ) -> None:
        self._spec = spec
        self.run_id = run_id
        self.label = label
        self.python = python
        self._plugin_logger = plugin_logger
        self._environment = dict(os.environb)
        self._directory: str | None = None
        try:
            self._directory = os.getcwd()
        except OSError:
            pass  # somebody has removed it

    def instance_directory(self) -> str | None:
        """Return the directory of the supervisor, as long as it has one.

        A supervisor removes its directory when it exits in order; one that is killed
        leaves it.
        """
        environ = {os.fsdecode(key): os.fsdecode(value) for key, value in self._environment.items()}
        paths = [instance_path(root, self.run_id, self.label) for root in candidates(environ)]
        return next(filter(os.path.isdir, paths), None)

    def start(self, previous: int, again: bool) -> SupervisorConnection:
        """Start a supervisor for this process.

        Args:
            previous: The pid of the supervisor that this one replaces; 1 if it never sent it,
                0 for the first one.
            again: Previous supervisors of this process may still be stopping; plugins
                start once they have exited.

        Raises:
            LaunchError: The process could not be created.
        """
        passed: list[int] = []
        connection = None
        try:
            # Above the standard descriptors, which an engine may have closed.
            pair = _socket.socketpair()
            try:
                connection = unpatched("socket", "socket")(fileno=_above_standard(pair[0].fileno()))
                passed.append(_above_standard(pair[1].fileno()))
            finally:
                pair[0].close()
                pair[1].close()
            passed.append(_own_pidfd())
            passed.append(_anonymous_file(self._spec))
            me = read_process(os.getpid())
            command = [
                self.python,
                *("-I", "-S"),
                BOOTSTRAP,
                __version__,
                *map(str, passed),
                str(os.getpid()),
                str(me.start if me is not None else 0),
                str(previous),
                str(int(again)),
                memory_image(os.getpid()),
                self.run_id,
                self.label,
            ]
            detaching_process = unpatched("subprocess", "Popen")(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[fd for fd in passed if fd >= 0],
                start_new_session=True,
                env=self._environment if previous else None,
                cwd=self._existing_directory() if previous else None,
            )
            return SupervisorConnection(connection, detaching_process, self._plugin_logger)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            if connection is not None:
                connection.close()
            raise LaunchError(
                f"cannot start the supervisor with '{self.python}': {error}"
            ) from error
        except BaseException:  # of a signal handler: a supervisor that may run must not stay
            if connection is not None:
                connection.send(wire.STOP, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                connection.close()
            raise
        finally:
            for fd in passed:
                if fd >= 0:
                    os.close(fd)

    def _existing_directory(self) -> str | None:
        known = self._directory
        return known if known is not None and os.access(known, os.X_OK) else None


def supervisor_python() -> str:
    """Return the interpreter that runs this engine.

    ``sys.executable`` may be a program that embeds Python, which would start itself once
    more: then the interpreter of ``sys.prefix`` is taken.

    Raises:
        LaunchError: No interpreter is known.
    """
    found = sys.executable
    if not found:
        raise LaunchError("cannot start the supervisor: sys.executable is empty")
    if os.access(found, os.X_OK) and not os.path.basename(found).startswith(("python", "pypy")):
        for name in (f"python3.{sys.version_info.minor}", "python3"):
            python = os.path.join(sys.prefix, "bin", name)
            if os.access(python, os.X_OK):
                return python
    return found


def _above_standard(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _own_pidfd() -> int:
    try:
        fd = pidfd_open(os.getpid())
    except OSError:
        return -1  # the supervisor reads /proc instead, and logs that
    try:
        return _above_standard(fd)
    finally:
        os.close(fd)


def _anonymous_file(data: bytes) -> int:
    """Return a descriptor of an anonymous file that holds ``data``, in memory where possible."""
    try:
        fd = os.memfd_create("lmcache-plugins-spec", os.MFD_CLOEXEC)
    except (OSError, AttributeError):  # a sandbox, or a Python built for older kernels
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        return _above_standard(fd)
    finally:
        os.close(fd)
