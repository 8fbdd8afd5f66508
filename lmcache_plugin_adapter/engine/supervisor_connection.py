# SPDX-License-Identifier: Apache-2.0
"""Exchange messages with a supervisor from inside the engine.

Only :meth:`SupervisorConnection.receive` and :meth:`~SupervisorConnection.wait_for_exit`
wait for the supervisor.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import weakref

from lmcache_plugin_adapter.contract import wire
from lmcache_plugin_adapter.linux.descriptor_identity import identity_of, is_pidfd_of
from lmcache_plugin_adapter.linux.descriptor_passing import receive_descriptors
from lmcache_plugin_adapter.linux.procfs import is_dying, read_process
from lmcache_plugin_adapter.linux.syscalls import pidfd_open

from .adopted import reap_child
from .unpatched import unpatched

TYPE_CHECKING = False
if TYPE_CHECKING:
    import subprocess

_CHECK_SECONDS = 5.0
"""How often a waiting thread checks its descriptors: poll looks numbers up anew when it is woken,
so that it sleeps on in a file that the host has opened under the same number."""

_POLL_SECONDS = 0.1
"""How often a lost supervisor is checked where the kernel offers no pidfds."""


_DYING_SECONDS = 1.0
"""How long the last threads of a killed supervisor may take to exit."""


class DescriptorsLostError(Exception):
    """The host has closed the descriptors of the connection, or they lead elsewhere now."""


class SupervisorConnection:
    """The engine's connection to one supervisor.

    Nobody closes the socket: it closes when the last thread that holds this object
    drops it, so no waiting thread ever sees its descriptor reused. A host that closes
    all descriptors may reuse the numbers: each use checks them first (:attr:`intact`).
    """

    def __init__(
        self,
        connected: socket.socket,
        detaching_process: subprocess.Popen[bytes],
        plugin_logger: str,
    ) -> None:
        self.socket = connected
        self._plugin_logger = plugin_logger
        self._identity = identity_of(connected.fileno())
        self.pid = 0
        """The supervisor's pid, once it has sent it."""
        self.pidfd = -1
        self._pidfd_identity: tuple[int, int] | None = None
        self._started = 0
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
        """Close the descriptors that are still this connection's; leave others alone."""
        if self.pidfd >= 0 and self._pidfd_intact:
            os.close(self.pidfd)
        self.pidfd = -1
        if identity_of(self.socket.fileno()) == self._identity:
            self.socket.close()
        else:
            self.socket.detach()

    @property
    def intact(self) -> bool:
        """Whether the descriptors are those that this object opened: only then are they used."""
        if identity_of(self.socket.fileno()) != self._identity:
            return False
        return self.pidfd < 0 or self._pidfd_intact

    @property
    def _pidfd_intact(self) -> bool:
        return is_pidfd_of(self.pidfd, self.pid, self._pidfd_identity)

    def reap_detaching_process(self) -> int:
        """Wait for the short-lived process that moved the supervisor out of the engine's tree.

        Returns:
            Its exit code, or minus the number of the signal that killed it.
        """
        return self._detaching_process.wait()

    def receive(self) -> bool:
        """Wait for messages of the supervisor; return False when it has exited.

        Raises:
            DescriptorsLostError: The connection cannot be read any more.
        """
        if not self.intact:
            raise DescriptorsLostError
        poll = unpatched("select", "poll")()
        poll.register(self.socket, select.POLLIN)
        if self.pidfd >= 0:  # a forked copy of the engine may hold the socket's other end
            poll.register(self.pidfd, select.POLLIN)
        while not poll.poll(_CHECK_SECONDS * 1000) and self.intact:
            pass
        if not self.intact:
            raise DescriptorsLostError
        try:
            data, fds = receive_descriptors(self.socket, 1024, wire.MOST_DESCRIPTORS)
        except OSError:
            data, fds = b"", []  # a process that has exited sends nothing more
        for fd in fds:
            _log_records_from(fd, self._plugin_logger)
        if not data:
            return False
        self._take(data)
        return True

    def poll_messages(self) -> None:
        """Read the supervisor's messages and reap the helper, if no thread does so."""
        self._detaching_process.poll()
        poll = unpatched("select", "poll")()
        poll.register(self.socket, select.POLLIN)
        try:
            while self.intact and poll.poll(0) and self.receive():
                pass
        except DescriptorsLostError:
            pass

    def exits(self) -> bool:
        """Return whether the supervisor has exited, or is being killed at this moment."""
        if self.wait_for_exit(0):
            return True
        return self.pid > 0 and is_dying(self.pid) and self.wait_for_exit(_DYING_SECONDS)

    def wait_for_exit(self, seconds: float, or_finish: bool = False) -> bool:
        """Wait until the supervisor has exited; safe in signal handlers and in several threads.

        Args:
            seconds: How long to wait at most.
            or_finish: Return also when no plugin is left: the supervisor then shuts its side
                of the socket down, and the kernel may need 20 ms more for its exit.

        Returns:
            Whether that has happened within ``seconds``.
        """
        if not self.intact:
            return _wait_for_process(self.pid, self._started, seconds)
        poll = unpatched("select", "poll")()
        # The watching thread may read the socket at the same time: hang-up is a state
        # that every thread sees. The pidfd becomes readable when the process has exited.
        if self.pidfd >= 0:
            poll.register(self.pidfd, select.POLLIN)
        if or_finish:
            poll.register(self.socket, select.POLLRDHUP)
        elif self.pidfd < 0:
            poll.register(self.socket, select.POLLHUP)
        return bool(poll.poll(max(seconds, 0.0) * 1000))

    def _take(self, data: bytes) -> None:
        *lines, self._data = (self._data + data).split(b"\n")
        for line in lines:
            message, value = line[:1], line[1:]
            if message == wire.READY:
                self.know_process(int(value))
                try:
                    self.pidfd = pidfd_open(self.pid)
                    self._pidfd_identity = identity_of(self.pidfd)
                except OSError:
                    pass  # the end of the connection alone marks its exit
            elif message == wire.GRACE:
                self.grace = float(value)
            elif message == wire.STOPPED_BY_SIGNAL:
                self.stopped_by_signal = True
            elif message == wire.FINISHED:
                self.finished = True

    def reap(self) -> None:
        """Reap the supervisor, which has exited, if this process has become its parent."""
        if self.pid and self.wait_for_exit(_DYING_SECONDS):
            reap_child(self.pid, self._started)

    def know_process(self, pid: int) -> None:
        """Keep the supervisor's pid, and the start time that tells it from later processes."""
        self.pid = pid
        process = read_process(pid)
        self._started = process.start if process is not None else 0

    def request_stop(self) -> bool:
        """Request that the supervisor stops its plugins and exits; returns at once.

        Returns:
            Whether the request was sent: not over a connection that is lost.
        """
        return self._send(wire.FAILING + wire.STOP if _failing() else wire.STOP)

    def report_exit(self) -> None:
        """Report to the supervisor that this process is about to exit; returns at once."""
        self._send(wire.FAILING if _failing() else wire.EXITING)

    def _send(self, message: bytes) -> bool:
        if not self.intact:
            return False
        try:
            self.socket.send(message, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError:
            pass  # the supervisor has exited
        return True


_connections: weakref.WeakSet[SupervisorConnection] = weakref.WeakSet()


def _close_in_child() -> None:
    """In a fork of the engine: only the engine's own exit, or exec, may end a connection."""
    for connection in list(_connections):
        connection.close()


os.register_at_fork(after_in_child=_close_in_child)


def _log_records_from(fd: int, logger: str) -> None:
    """Log the records that arrive on ``fd`` with ``logger``; never raises."""
    try:
        from .logging_receiver import start  # loaded only for `log: logging`
    except Exception:  # noqa: BLE001 - the supervisor then writes to stderr itself
        os.close(fd)
    else:
        start(fd, logger)


def _wait_for_process(pid: int, started: int, seconds: float) -> bool:
    """Wait until a process has exited, with a pidfd of this call alone."""
    try:
        fd = pidfd_open(pid) if pid else -1
    except OSError:
        fd = -1
    identity = identity_of(fd)
    process = read_process(pid) if pid else None
    exited = process is None or process.start != started
    if fd < 0:
        if not exited:
            unpatched("time", "sleep")(min(seconds, _POLL_SECONDS))
        return exited
    try:
        poll = unpatched("select", "poll")()
        poll.register(fd, select.POLLIN)
        return exited or bool(poll.poll(seconds * 1000))
    finally:
        if is_pidfd_of(fd, pid, identity):
            os.close(fd)


def _failing() -> bool:
    """Return whether an exception ends this process: one being handled, or an uncaught one."""
    error = sys.exc_info()[1]
    if error is None and not hasattr(sys, "ps1"):  # at a prompt, the last one ended nothing
        error = getattr(sys, "last_value", None)
    return isinstance(error, Exception)  # neither sys.exit nor Ctrl-C
