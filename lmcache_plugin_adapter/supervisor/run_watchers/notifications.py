# SPDX-License-Identifier: Apache-2.0
"""Readiness and watchdog of a plugin, by the protocol of sd_notify(3).

Each run has a socket of its own, whose path the plugin finds in ``NOTIFY_SOCKET``.
"""

from __future__ import annotations

import os
import signal
import socket
import time

from lmcache_plugin_adapter.contract.log_records import INFO, WARNING
from lmcache_plugin_adapter.contract.variables import (
    NOTIFY_SOCKET,
    WATCHDOG_PID,
    WATCHDOG_USEC,
)
from lmcache_plugin_adapter.linux.peer import receive_datagram
from lmcache_plugin_adapter.linux.procfs import read_process
from lmcache_plugin_adapter.messages.wording import span
from lmcache_plugin_adapter.supervisor.processes.leftovers import carries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lmcache_plugin_adapter.contract.planned_plugin import PlannedPlugin
    from lmcache_plugin_adapter.contract.runtime_dir import InstanceDir
    from lmcache_plugin_adapter.linux.event_loop import Timer
    from lmcache_plugin_adapter.supervisor.services import Services

_LONGEST_PATH = 107
"""Bytes of a socket's path that the kernel accepts."""

_AT_ONCE = 32
"""Messages that are read before other work gets its turn."""

_LONGEST_STATUS = 200
"""Characters of a status text that are kept."""


def parse(message: bytes) -> dict[str, str]:
    """Return the assignments of a message; lines of another form are ignored."""
    text = message.decode("utf-8", "backslashreplace")
    pairs = (line.partition("=") for line in text.split("\n"))
    return {key: value for key, equals, value in pairs if equals}


class Notifications:
    """Receive the notifications of one plugin, and watch their times.

    Args:
        services: The loop, the log, the reaper and the runtime directory.
        name: The plugin's name.
        planned: The plugin as planned.
        fail: Ends the run as a failure, with the cause and the first signal.
        changed: Called when the plugin has become ready, or not ready.
    """

    def __init__(
        self,
        services: Services,
        name: str,
        planned: PlannedPlugin,
        fail: Callable[[str, signal.Signals], None],
        changed: Callable[[], None],
    ) -> None:
        self._services = services
        self._name = name
        self._planned = planned
        self._fail = fail
        self._changed = changed
        self.ready = False
        self.text: str | None = None
        """The status text of the current or last run."""
        self._pid = 0
        self._sockets: list[socket.socket] = []
        """The first one, to which clients may be connected, and the last one made again."""
        self._path = ""
        self._address = ""
        """The address as the plugin knows it."""
        self._timer: Timer | None = None
        self._due = self._seconds = 0.0
        self._cause = ""
        self._begun = 0.0
        self._has_refused = False

    def environment(self) -> dict[bytes, bytes]:
        """Open the socket of the next run, and return the variables of the protocol."""
        self._close()
        self.ready, self.text, self._has_refused = False, None, False
        try:
            self._open()
        except OSError as error:
            text = f"No notifications (notify), so it counts as ready: {error.strerror}"
            self._services.events.log(WARNING, text, self._name)
            self.ready = True
            return {}
        variables = {NOTIFY_SOCKET.encode(): os.fsencode(self._address)}
        if self._planned.watchdog is not None:
            variables[WATCHDOG_USEC.encode()] = b"%d" % (self._planned.watchdog * 1_000_000)
            variables[WATCHDOG_PID.encode()] = b""  # set in the child
        return variables

    def run_started(self, pid: int) -> None:
        """Begin to watch a run."""
        self._pid = pid
        self._begun = time.monotonic()
        if self._sockets:
            seconds = self._planned.ready_timeout
            self._expect(seconds, f"Not ready within {seconds:g} s (ready_timeout)")

    def run_ended(self) -> None:
        """Read the last notifications of a run whose first process has exited."""
        self._receive()
        self._close()
        self.ready = False

    # --- inside -------------------------------------------------------------

    def _open(self) -> None:
        """Open the socket of a run."""
        # Another user cannot enter the directory: an address in the abstract namespace, then.
        is_abstract = self._planned.credentials is not None
        name = f"notify.{os.urandom(16 if is_abstract else 4).hex()}"
        instance = self._bind(name, is_abstract)
        self._address = f"@{name}" if is_abstract else self._path
        if not is_abstract and len(os.fsencode(self._path)) > _LONGEST_PATH:
            self._address = f"/proc/{os.getpid()}/fd/{instance.fd}/{name}"

    def _bind(self, name: str, is_abstract: bool) -> InstanceDir:
        """Listen at a name, and return the directory."""
        instance = self._services.instance
        if instance is None:
            raise OSError(0, "there is no runtime directory")
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        path = f"/proc/self/fd/{instance.fd}/{name}"
        try:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            receiver.bind(f"\0{name}" if is_abstract else path)
            if not is_abstract:
                os.chmod(path, 0o600)  # not by umask, which all threads share
        except OSError:
            receiver.close()
            raise
        for old in self._sockets[1:]:
            self._close_socket(old)
        self._sockets.append(receiver)
        self._services.loop.watch(receiver.fileno(), self._receive)
        if not is_abstract:
            self._services.sockets.pop(self._path, None)
            self._path = instance.file(name)
            self._services.sockets[self._path] = self._make_again
        return instance

    def _make_again(self) -> None:
        """Listen again at the name of a socket that somebody has removed."""
        try:
            self._bind(os.path.basename(self._path), is_abstract=False)
        except OSError:
            return  # a full disk: the plugin has all the time of this run
        self._due = max(self._due, time.monotonic() + self._seconds)

    @property
    def _is_cut_off(self) -> bool:
        """Whether the plugin finds no socket: somebody has removed it."""
        return bool(self._path) and not os.path.lexists(self._address)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close(self) -> None:
        self._cancel_timer()
        for receiver in list(self._sockets):
            self._close_socket(receiver)
        if self._path:
            self._services.sockets.pop(self._path, None)
            try:
                os.unlink(self._path)
            except OSError:
                pass  # removed with its directory
            self._path = ""

    def _close_socket(self, receiver: socket.socket) -> None:
        self._services.loop.unwatch(receiver.fileno())
        receiver.close()
        self._sockets.remove(receiver)

    def _receive(self) -> None:
        for receiver in list(self._sockets):
            self._receive_from(receiver)

    def _receive_from(self, receiver: socket.socket) -> None:
        for _ in range(_AT_ONCE):
            try:
                message, pid, user, descriptors = receive_datagram(receiver)
            except OSError:
                return  # nothing more has arrived, or its run has ended
            try:
                if self._is_own(pid, user):
                    self._handle(parse(message))
            finally:
                for fd in descriptors:  # closing tells a sender of BARRIER=1 that all is handled
                    os.close(fd)

    def _is_own(self, pid: int, user: int) -> bool:
        """Tell whether a process of the plugin has sent a message.

        A sender that has exited and been reaped already is known by its user alone.
        """
        credentials = self._planned.credentials
        if user in (0, os.getuid() if credentials is None else credentials[0]):
            process = read_process(pid)
            if (
                pid == self._pid
                or process is None
                or self._pid in (process.group, process.session)
                or carries(pid, self._services.reaper.run_id, self._name)
            ):
                return True
        if not self._has_refused:
            self._has_refused = True
            text = f"Ignored a notification from process {pid} of user {user}: not the plugin's"
            self._services.events.log(WARNING, text, self._name)
        return False

    def _handle(self, message: dict[str, str]) -> None:
        if "STATUS" in message:
            self.text = message["STATUS"][:_LONGEST_STATUS] or None
        if message.get("READY") == "1" and not self.ready:
            self._set_ready(True)
            self._feed()
        if message.get("STOPPING") == "1" and self._sockets:
            grace = self._planned.stop_grace
            self._expect(grace, f"Did not exit within {grace:g} s of STOPPING=1 (stop_grace)")
            self._set_ready(False)
        elif message.get("WATCHDOG") == "1" and self.ready:
            self._feed()
        elif message.get("WATCHDOG") == "trigger":
            self._fail("Reported a failure of its own (WATCHDOG=trigger)", signal.SIGABRT)
        extension = message.get("EXTEND_TIMEOUT_USEC", "")
        if extension.isascii() and extension.isdigit() and not self.ready:
            self._due = max(self._due, time.monotonic() + int(extension[:18]) / 1_000_000)

    def _set_ready(self, ready: bool) -> None:
        if self.ready is not ready:
            self.ready = ready
            after = span(time.monotonic() - self._begun)
            text = f"Ready after {after}" if ready else f"Reports after {after} that it stops"
            self._services.events.log(INFO, text, self._name)
            self._changed()

    def _feed(self) -> None:
        """Expect the next WATCHDOG=1, or nothing more without a watchdog."""
        seconds = self._planned.watchdog
        if seconds is not None:
            self._expect(seconds, f"No WATCHDOG=1 within {seconds:g} s (watchdog)")
        else:
            self._cause = ""
            self._cancel_timer()

    def _expect(self, seconds: float, cause: str) -> None:
        """Let the run fail if no notification arrives in time."""
        self._cause, self._seconds = cause, seconds
        self._due = time.monotonic() + seconds
        if self._timer is None or self._timer.due > self._due:
            self._wait()

    def _wait(self) -> None:
        self._cancel_timer()
        self._timer = self._services.loop.call_later(self._due - time.monotonic(), self._elapsed)

    def _elapsed(self) -> None:
        self._timer = None
        self._receive()  # what arrived while this supervisor was stopped, or busy
        if not self._cause:
            return
        if self._is_cut_off:  # its messages cannot arrive: they get their time again
            self._due = time.monotonic() + self._seconds
        if time.monotonic() < self._due:  # it was fed, or its time extended, meanwhile
            self._wait()
        else:
            self._fail(self._cause, signal.SIGABRT)
