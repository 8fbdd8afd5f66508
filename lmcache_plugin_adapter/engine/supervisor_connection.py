"""Start a supervisor from the engine and exchange messages with it.

The work is constant, whatever the engine's memory and its number of plugins, and
nothing here waits for the supervisor.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import subprocess
import sys
import tempfile
import weakref

from lmcache_plugin_adapter.contract import wire
from lmcache_plugin_adapter.linux.descriptor_passing import receive_descriptors
from lmcache_plugin_adapter.linux.procfs import read_process
from lmcache_plugin_adapter.linux.syscalls import pidfd_open

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

BOOTSTRAP = os.path.join(_PACKAGE, "supervisor", "bootstrap.py")
"""Started by its path, never imported."""


class LaunchError(Exception):
    """No supervisor could be started; the text gives the reason."""


class SupervisorConnection:
    """The engine's connection to one supervisor.

    Nobody closes the socket: it closes when the last thread that holds this object
    drops it, so no waiting thread ever sees its descriptor reused.
    """

    def __init__(
        self, connected: socket.socket, detaching_process: subprocess.Popen[bytes]
    ) -> None:
        self.socket = connected
        self.pid = 0
        """The supervisor's pid, once it has sent it."""
        self.pidfd = -1
        self.grace = 0.0
        """The longest grace period of its plugins in seconds, once it has sent it."""
        self.stopped_by_signal = False
        """Whether a signal stopped the supervisor: then the engine starts no other."""
        self.finished = False
        """Whether the supervisor has reported that no plugin is left; else it was killed."""
        self._detaching_process = detaching_process
        self._data = b""
        _connections.add(self)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors, in a process that is not the engine."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        self.socket.close()

    def reap_detaching_process(self) -> int:
        """Wait for the short-lived process that moved the supervisor out of the engine's tree.

        Returns:
            Its exit code, or minus the number of the signal that killed it.
        """
        return self._detaching_process.wait()

    def receive(self) -> bool:
        """Wait for messages of the supervisor; return False when it has exited."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        if self.pidfd >= 0:  # a forked copy of the engine may hold the socket's other end
            poll.register(self.pidfd, select.POLLIN)
        poll.poll()
        try:
            data, fds = receive_descriptors(self.socket, 1024, wire.MOST_DESCRIPTORS)
        except OSError:
            data, fds = b"", []  # a process that has exited sends nothing more
        for fd in fds:
            from .logging_receiver import start  # loaded only for `log: logging`

            start(fd)
        if not data:
            return False
        self._take(data)
        return True

    def poll_messages(self) -> None:
        """Read the supervisor's messages and reap the helper, if no thread does so."""
        self._detaching_process.poll()
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        while poll.poll(0) and self.receive():
            pass

    def wait_for_exit(self, seconds: float) -> bool:
        """Wait until the supervisor has exited; safe in signal handlers and in several threads.

        Returns:
            Whether it has exited within ``seconds``.
        """
        poll = select.poll()
        # The watching thread may read the socket at the same time: hang-up is a state
        # that every thread sees. The pidfd becomes readable when the process has exited.
        if self.pidfd >= 0:
            poll.register(self.pidfd, select.POLLIN)
        else:
            poll.register(self.socket, select.POLLHUP)
        return bool(poll.poll(max(seconds, 0.0) * 1000))

    def _take(self, data: bytes) -> None:
        *lines, self._data = (self._data + data).split(b"\n")
        for line in lines:
            message, value = line[:1], line[1:]
            if message == wire.READY:
                self.pid = int(value)
                try:
                    self.pidfd = pidfd_open(self.pid)
                except OSError:
                    pass  # the end of the connection alone marks its exit
            elif message == wire.GRACE:
                self.grace = float(value)
            elif message == wire.STOPPED_BY_SIGNAL:
                self.stopped_by_signal = True
            elif message == wire.FINISHED:
                self.finished = True

    def request_stop(self) -> None:
        """Ask the supervisor to stop its plugins and exit; returns at once."""
        self._send(wire.FAILING + wire.STOP if _failing() else wire.STOP)

    def report_exit(self) -> None:
        """Report to the supervisor that this process is about to exit; returns at once."""
        self._send(wire.FAILING if _failing() else wire.EXITING)

    def _send(self, message: bytes) -> None:
        try:
            self.socket.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass  # the supervisor has exited


_connections: weakref.WeakSet[SupervisorConnection] = weakref.WeakSet()


def _close_in_child() -> None:
    """In a fork of the engine: only the engine's own exit, or exec, may end a connection."""
    for connection in list(_connections):
        connection.close()


os.register_at_fork(after_in_child=_close_in_child)


def start_supervisor(
    spec: bytes, run_id: str, label: str, python: str, previous: int, again: bool
) -> SupervisorConnection:
    """Start a supervisor for this process.

    Args:
        spec: A launch spec, as :meth:`.contract.launch_spec.LaunchSpec.to_bytes` makes it.
        run_id: The run token.
        label: The identity for people.
        python: The interpreter that runs the supervisor.
        previous: The pid of the supervisor that this one replaces, or 0.
        again: Previous supervisors of this process may still be stopping; plugins
            start once they have exited.

    Raises:
        LaunchError: The process could not be created.
    """
    passed: list[int] = []
    connection = None
    try:
        # Above the standard descriptors, which an engine may have closed.
        pair = socket.socketpair()
        try:
            connection = socket.socket(fileno=_above_standard(pair[0].fileno()))
            passed.append(_above_standard(pair[1].fileno()))
        finally:
            pair[0].close()
            pair[1].close()
        passed.append(_own_pidfd())
        passed.append(_anonymous_file(spec))
        me = read_process(os.getpid())
        command = [
            python,
            *("-I", "-S", "-W", "ignore"),
            BOOTSTRAP,
            *map(str, passed),
            str(os.getpid()),
            str(me.start if me is not None else 0),
            str(previous),
            str(int(again)),
            run_id,
            label,
        ]
        detaching_process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[fd for fd in passed if fd >= 0],
            start_new_session=True,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        if connection is not None:
            connection.close()
        raise LaunchError(f"cannot start the supervisor with '{python}': {error}") from error
    finally:
        for fd in passed:
            if fd >= 0:
                os.close(fd)
    return SupervisorConnection(connection, detaching_process)


def _failing() -> bool:
    """Return whether an exception ends this process: one being handled, or an uncaught one."""
    error = sys.exc_info()[1]
    if error is None and not hasattr(sys, "ps1"):  # at a prompt, the last one ended nothing
        error = getattr(sys, "last_value", None)
    return isinstance(error, Exception)  # neither sys.exit nor Ctrl-C


def supervisor_python() -> str:
    """Return the interpreter that runs this engine.

    Raises:
        LaunchError: ``sys.executable`` is empty, as in a program that embeds Python.
    """
    if not sys.executable:
        raise LaunchError("cannot start the supervisor: sys.executable is empty")
    return sys.executable


def _above_standard(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)


def _own_pidfd() -> int:
    try:
        fd = pidfd_open(os.getpid())
    except OSError:
        return -1  # the supervisor reads /proc instead, and says so
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
