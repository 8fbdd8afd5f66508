"""The engine's side of its supervisor: start one, talk to it, see it end.

Everything here is constant work for the engine, whatever its size and its
number of plugins, and nothing here waits for the supervisor.
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
    """No supervisor could be started; the text says why."""


class Link:
    """A supervisor and the engine's connection to it.

    The connection is never closed by hand: it closes when the last thread that
    holds this object lets go of it, so no waiter ever sees its number reused.
    """

    def __init__(self, connection: socket.socket, helper: subprocess.Popen[bytes]) -> None:
        self.connection = connection
        self.pid = 0
        """The supervisor, once it has said so."""
        self.pidfd = -1
        self.grace = 0.0
        """The longest grace period of its plugins, once it has said so."""
        self.orderly = False
        """Whether it was told to stop by a signal: then no other is started."""
        self.finished = False
        """Whether it said that nothing is left; else it was killed."""
        self._helper = helper
        self._data = b""
        _links.add(self)

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection, in a process that is not the engine."""
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        self.connection.close()

    def reap_helper(self) -> int:
        """Wait for the short-lived process that put the supervisor outside our tree.

        Returns:
            Its exit code, or minus the number of the signal that ended it.
        """
        return self._helper.wait()

    def receive(self) -> bool:
        """Wait for messages of the supervisor; False when it is gone."""
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        if self.pidfd >= 0:  # a forked copy of the engine may hold the connection's other end
            poll.register(self.pidfd, select.POLLIN)
        poll.poll()
        try:
            data, fds = receive_descriptors(self.connection, 1024, wire.MOST_DESCRIPTORS)
        except OSError:
            data, fds = b"", []  # nothing more has come from a process that has ended
        for fd in fds:
            from .logging_receiver import start  # only who wants it pays for it

            start(fd)
        if not data:
            return False
        self._take(data)
        return True

    def poll_messages(self) -> None:
        """Take what the supervisor has said, and reap the helper, where no thread does."""
        self._helper.poll()
        poll = select.poll()
        poll.register(self.connection, select.POLLIN)
        while poll.poll(0) and self.receive():
            pass

    def wait_for_end(self, seconds: float) -> bool:
        """Wait until the supervisor has ended; safe in signal handlers and in several threads.

        Returns:
            Whether it has, before so many seconds were over.
        """
        poll = select.poll()
        # The watching thread may be reading the connection: hang-up is a state
        # that all see. The pidfd tells when the process is gone.
        if self.pidfd >= 0:
            poll.register(self.pidfd, select.POLLIN)
        else:
            poll.register(self.connection, select.POLLHUP)
        return bool(poll.poll(max(seconds, 0.0) * 1000))

    def _take(self, data: bytes) -> None:
        *lines, self._data = (self._data + data).split(b"\n")
        for line in lines:
            kind, value = line[:1], line[1:]
            if kind == wire.READY:
                self.pid = int(value)
                try:
                    self.pidfd = pidfd_open(self.pid)
                except OSError:
                    pass  # it is waited for by the connection's end alone
            elif kind == wire.GRACE:
                self.grace = float(value)
            elif kind == wire.STOPPED_BY_SIGNAL:
                self.orderly = True
            elif kind == wire.FINISHED:
                self.finished = True

    def ask_to_stop(self) -> None:
        """Ask the supervisor to stop its plugins and end; returns at once."""
        self._send(wire.FAILING + wire.STOP if _failing() else wire.STOP)

    def say_exit(self) -> None:
        """Tell the supervisor that this process is about to exit by itself; returns at once."""
        self._send(wire.FAILING if _failing() else wire.EXITING)

    def _send(self, message: bytes) -> None:
        try:
            self.connection.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass  # it is gone


_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _close_in_child() -> None:
    """In a fork of the engine: only the original's end, or exec, may end a connection."""
    for link in list(_links):
        link.close()


os.register_at_fork(after_in_child=_close_in_child)


def start_supervisor(
    spec: bytes, run_id: str, label: str, python: str, previous: int, again: bool
) -> Link:
    """Start a supervisor for this process.

    Args:
        spec: A launch spec, as :meth:`.contract.launch_spec.LaunchSpec.to_bytes` makes it.
        run_id: The token of this run.
        label: The identity for people.
        python: The interpreter to run it.
        previous: The supervisor that it replaces, or 0.
        again: Earlier ones of this process may still be ending; plugins start
            when they have.

    Raises:
        LaunchError: Nothing could be started.
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
        helper = subprocess.Popen(
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
    return Link(connection, helper)


def _failing() -> bool:
    """Tell whether an exception ends this process: one that is handled now, or got through."""
    error = sys.exc_info()[1]
    if error is None and not hasattr(sys, "ps1"):  # at a prompt, the last one ended nothing
        error = getattr(sys, "last_value", None)
    return isinstance(error, Exception)  # neither sys.exit nor Ctrl-C


def supervisor_python() -> str:
    """Return the interpreter that runs this engine.

    Raises:
        LaunchError: It is not known, as in a program that embeds Python.
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
