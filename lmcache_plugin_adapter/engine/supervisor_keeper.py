# SPDX-License-Identifier: Apache-2.0
"""Keep one supervisor for the plugins of this process: replace it when it is killed.

A launcher that launches again after a stop gets another keeper, so that the previous
supervisor, which may still be stopping, cannot act on the new one.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import weakref

from lmcache_plugin_adapter.contract.runtime_dir import remove_instance
from lmcache_plugin_adapter.contract.version import VERSION_DIFFERS_CODE

from .adopted import AdoptedProcesses
from .control_client import ask, supervisor_pid
from .respawn import MAX_SECONDS, Respawn
from .supervisor_connection import DescriptorsLostError, SupervisorConnection
from .unpatched import unpatched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .supervisor_start import SupervisorStart

logger = logging.getLogger(__name__)

SLACK_SECONDS = 2.0
"""How long a stop waits beyond the longest grace period."""

_REQUEST_SECONDS = 1.0
"""How long the control socket may take to accept a stop."""

_LAST_MESSAGE_SECONDS = 0.05
"""How long an exit waits for the last message of a supervisor to be read."""

_keepers: weakref.WeakSet[SupervisorKeeper] = weakref.WeakSet()

_active: dict[tuple[int, str], SupervisorKeeper] = {}
"""The keepers by process and identity: a second launch starts no second copy."""

_stopped: set[tuple[int, str]] = set()
"""Identities that were stopped: the next supervisor waits until the previous has exited."""

_locks: dict[int, threading.RLock] = {}
"""By process: a fork inherits a lock that another thread may hold. Re-entrant for signal
handlers, which may stop a launcher."""


class SupervisorKeeper:
    """Keeps a supervisor running from :meth:`begin` until its last user leaves.

    The users are the launchers of one identity in this process: with several engines in
    one process, each engine has its own launcher.

    Args:
        start: What supervisors are started with.
        choices: What decides what the plugins do, for a comparison with other launchers:
            values by their keys in the configuration.
    """

    def __init__(self, start: SupervisorStart, choices: Mapping[str, object]) -> None:
        self.choices = choices
        self._users: set[object] = set()
        self._supervisor_start = start
        self._label = start.label
        self._owner = os.getpid()
        self._stopping = False
        self._connection: SupervisorConnection | None = None
        self._watching = False
        # Held until a stop: a lock may be released anywhere, signal handlers included.
        self._until_stop = unpatched("_thread", "allocate_lock")()
        self._until_stop.acquire()
        self._starting = unpatched("_thread", "allocate_lock")()
        self._exiting = False
        self._adopted = AdoptedProcesses(start.run_id)

    def begin(self, user: object) -> SupervisorKeeper:
        """Start the supervisor for ``user``, or join the keeper that this identity already has.

        Returns:
            The keeper that ``user`` leaves later: this one, or the one it has joined.

        Raises:
            LaunchError: No supervisor could be started.
        """
        key = (self._owner, self._label)
        with _lock():
            other = _active.get(key)
            if other is not None:
                other._drop_if_stopped()
            serving = _active.setdefault(key, self)
            serving._users.add(user)
        if serving is not self:
            return serving
        self._watching = True
        try:
            self._connection = self._start()
            _keepers.add(self)
            self._start_watching()
        except BaseException:
            self._watching = False
            if self._connection is not None:
                self._connection.request_stop()
                self._connection = None
            _active.pop(key, None)
            raise
        return self

    def _start_watching(self) -> None:
        try:
            # threading.Thread.start() waits until the thread runs, which takes milliseconds here.
            # A thread holds its arguments until it exits: so it gets no connection.
            unpatched("_thread", "start_new_thread")(self._keep_watch, ())
        except RuntimeError as error:  # the limit of threads is reached
            self._watching = False
            logger.warning(
                "Cannot watch the supervisor of runtime plugins (%s): "
                "should it be killed, it is not started again",
                error,
            )

    @property
    def connection(self) -> SupervisorConnection | None:
        """The connection to the supervisor; None after its exit, and in a fork of the engine."""
        return self._connection if self._owner == os.getpid() else None

    def leave(self, user: object, wait: bool, timeout: float | None) -> None:
        """Stop the plugins for ``user``, as :meth:`.RuntimePluginLauncher.stop_plugins` describes.

        They continue while another launcher uses them.
        """
        if self._owner != os.getpid():
            return
        with _lock():
            self._users.discard(user)
            if self._users:
                return
            self._forget()  # who launches from here on gets another keeper
        self.stop(wait, timeout)

    def stop(self, wait: bool, timeout: float | None) -> None:
        """Stop the plugins, even if other launchers use them."""
        connection = self.connection
        if connection is None:
            return
        self._forget()
        try:
            self._until_stop.release()
        except RuntimeError:
            pass  # an earlier stop released it
        self._request_stop(connection)
        if wait:
            self._wait(connection, time.monotonic(), timeout)

    def ask(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any] | None:
        """Return the supervisor's answer to a request; None if none comes within ``timeout``."""
        connection = self.connection
        if connection is None:
            return None
        return ask(connection, self._supervisor_start.instance_directory(), request, timeout)

    def finish_at_exit(self) -> None:
        """Report the exit of this process; start a supervisor to finish if none lives.

        A supervisor that was killed just now has a successor only after a pause, and this
        process may exit before.
        """
        if self._exiting or self.connection is None:
            return
        if not self._starting.acquire(timeout=1.0):
            return  # the supervisor that is being started sees the end of this process
        try:
            self._exiting = True  # the watching thread starts nothing from here on
            connection = self.connection
            if connection is None or self._has_finished(connection):
                return
            if connection.exits():
                self._connection = self._start(connection.pid or 1)
                self._connection.request_stop()
            else:
                connection.report_exit()
        except Exception as error:  # noqa: BLE001 - an exit must continue
            logger.warning("Cannot stop what a killed supervisor left: %s", error)
        finally:
            self._starting.release()

    def _has_finished(self, connection: SupervisorConnection) -> bool:
        """Return whether a supervisor that has exited has stopped in order."""
        if not connection.exits():
            return False
        if not connection.intact:
            return self._supervisor_start.instance_directory() is None
        if not self._watching:
            connection.poll_messages()
        deadline = time.monotonic() + _LAST_MESSAGE_SECONDS
        while not (connection.finished or connection.stopped_by_signal):
            if time.monotonic() > deadline or not self._watching:
                return False
            time.sleep(0.005)  # the watching thread may be about to read the last message
        return True

    # --- inside -----------------------------------------------------------

    def _start(self, previous: int = 0) -> SupervisorConnection:
        # A supervisor that only finishes a stop starts nothing, so it waits for no other one,
        # which may wait for it.
        again = not self._stopping and (self._owner, self._label) in _stopped
        return self._supervisor_start.start(previous, again)

    def _request_stop(self, connection: SupervisorConnection) -> None:
        if connection.request_stop():
            return
        directory = self._supervisor_start.instance_directory()
        answer = ask(connection, directory, {"op": "shutdown"}, _REQUEST_SECONDS)
        if answer is None or answer.get("ok") is False:
            logger.warning(
                "Cannot reach the supervisor of runtime plugins of %s: its plugins stop with the "
                "engine",
                self._label,
            )

    def _drop_if_stopped(self) -> None:
        """If no thread watches, read whether a signal has stopped the supervisor."""
        connection = self._connection
        if connection is not None and not self._watching:
            connection.poll_messages()
            if connection.stopped_by_signal:
                self._forget()

    def _wait(self, connection: SupervisorConnection, began: float, timeout: float | None) -> None:
        """Wait until no plugin is left; follow to the next supervisor if this one is killed."""
        while True:
            watching = self._watching
            if not watching:  # then no thread reads its messages
                connection.poll_messages()
            limit = connection.grace + SLACK_SECONDS
            left = began + (limit if timeout is None else min(timeout, limit)) - time.monotonic()
            if left <= 0:
                return
            if connection.wait_for_exit(left if watching else min(left, 0.1), or_finish=True):
                if connection.finished or not self._watching:
                    self._connection = None
                    return
                connection = self._connection or connection
                time.sleep(0.001)

    def _keep_watch(self) -> None:
        try:
            self._watch()
            self._connection = None  # its descriptors close
        finally:
            self._watching = False

    def _watch(self) -> None:
        """Replace the supervisor when it is killed; a thread that sleeps in one poll."""
        connection = self._connection
        if connection is None:
            return
        if threading.get_native_id() != os.getpid():
            # The engine's own threads handle its signals. With eventlet, this is the main thread.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        previous, respawn = 0, Respawn()
        while True:
            respawn.started()
            code = connection.reap_detaching_process()
            needs_none = self._wait_until_gone(connection)
            connection.reap()
            if needs_none:
                return
            # It was killed. The next one kills the orphaned processes and starts the plugins.
            respawn.exited(ready=connection.pid > 0)
            previous = connection.pid or previous
            problem = None if connection.pid else self._why_unready(code)
            if problem is not None and self._gives_up(code, respawn, problem):
                return
            next_connection = None
            while next_connection is None:
                delay = respawn.next_delay()
                if problem is not None:
                    if self._stopping:  # it has started nothing
                        self._remove_directory()
                        return
                    logger.warning(
                        "Supervisor of runtime plugins of %s failed: %s; trying again in %.1f s",
                        self._label,
                        problem,
                        delay,
                    )
                if not self._stopping:
                    self._until_stop.acquire(timeout=delay)
                self._adopted.find(self._supervisor_start.instance_directory())
                with self._starting:
                    if self._exiting:
                        return
                    try:
                        next_connection = self._start(previous or 1)
                        self._connection = next_connection
                    except Exception as error:  # noqa: BLE001 - also a lack of memory may pass
                        problem = str(error) or repr(error)
            connection = next_connection
            if self._stopping:
                self._request_stop(connection)

    def _wait_until_gone(self, connection: SupervisorConnection) -> bool:
        """Wait until the supervisor has exited; return True if it needs no successor."""
        try:
            while connection.receive():
                self._adopted.reap()
                if connection.stopped_by_signal:
                    self._forget()
        except DescriptorsLostError:
            return self._wait_without_descriptors(connection)
        return connection.finished or self._owner != os.getpid()

    def _wait_without_descriptors(self, connection: SupervisorConnection) -> bool:
        """Do the same where the host has closed the connection: its process is watched."""
        if self._owner != os.getpid():
            return True
        if not self._stopping:
            logger.warning(
                "The engine has closed the descriptors of the runtime plugin adapter: "
                "plugins of %s continue, and stop with the engine",
                self._label,
            )
        directory = self._supervisor_start.instance_directory()
        if not connection.pid and directory is not None:
            connection.know_process(supervisor_pid(directory, _REQUEST_SECONDS))
        if not connection.pid:
            return True  # there is nothing to watch it by
        while not connection.wait_for_exit(MAX_SECONDS):
            pass
        # A supervisor removes its directory, save where it is killed.
        return directory is None or not os.path.isdir(directory)

    def _why_unready(self, code: int) -> str:
        python = self._supervisor_start.python
        return f"it ended before it was ready ('{python}' exited with code {code})"

    def _gives_up(self, code: int, respawn: Respawn, problem: str) -> bool:
        """Return True, and log why, if another supervisor could not start either."""
        if code == VERSION_DIFFERS_CODE:
            self._give_up()  # the supervisor has logged both versions
            return True
        if not respawn.hopeless:
            return False
        logger.error(
            "Supervisor of runtime plugins of %s failed %d times: %s; no plugins run in this "
            "process until the engine is restarted",
            self._label,
            respawn.unready,
            problem,
        )
        self._give_up()
        return True

    def _give_up(self) -> None:
        self._forget()
        self._remove_directory()

    def _remove_directory(self) -> None:
        """Remove what a killed supervisor left in the runtime directory: no other will."""
        directory = self._supervisor_start.instance_directory()
        if directory is not None:
            remove_instance(directory)

    def _forget(self) -> None:
        key = (self._owner, self._label)
        self._stopping = True
        if _active.get(key) is self:
            _stopped.add(key)
            _active.pop(key, None)


def _lock() -> threading.RLock:
    return _locks.setdefault(os.getpid(), threading.RLock())


def stop_all() -> None:
    """Request the stop of every supervisor of this process; do not wait."""
    for keeper in list(_active.values()):
        keeper.stop(wait=False, timeout=None)


def report_exit() -> None:
    """Report to the supervisors of this process that it exits on its own, for plugins to read."""
    for keeper in list(_keepers):
        keeper.finish_at_exit()
    receiver = sys.modules.get(f"{__package__}.logging_receiver")  # loaded on first use
    finish = getattr(receiver, "finish", None)  # missing while the module is being loaded
    if finish is not None:
        finish()
