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
from _thread import start_new_thread

from lmcache_plugin_adapter.contract.backoff import backoff_delay

from .supervisor_connection import SupervisorConnection, start_supervisor

logger = logging.getLogger(__name__)

SLACK_SECONDS = 2.0
"""How long a stop waits beyond the longest grace period."""

_RESPAWN_INITIAL = 0.1
_RESPAWN_MAX = 30.0
_RESPAWN_RESET_AFTER = 30.0

_active: dict[tuple[int, str], SupervisorKeeper] = {}
"""The keepers by process and identity: a second launch starts no second copy."""

_stopped: set[tuple[int, str]] = set()
"""Identities that were stopped: the next supervisor waits until the previous has exited."""


class SupervisorKeeper:
    """Keeps a supervisor running from :meth:`begin` to :meth:`stop`.

    Args:
        spec: A launch spec, from :meth:`.contract.launch_spec.LaunchSpec.to_bytes`.
        run_id: The run token.
        label: The identity for people.
        python: The interpreter for supervisors.
    """

    def __init__(self, spec: bytes, run_id: str, label: str, python: str) -> None:
        self._spec = spec
        self._run_id = run_id
        self._label = label
        self._python = python
        self._owner = os.getpid()
        self._stopping = False
        self._connection: SupervisorConnection | None = None
        self._watching = False
        # Held until a stop: a lock may be released anywhere, signal handlers included.
        self._pause = threading.Lock()
        self._pause.acquire()

    def begin(self) -> bool:
        """Start the supervisor; return False if this identity already has one.

        Raises:
            LaunchError: No supervisor could be started.
        """
        key = (self._owner, self._label)
        other = _active.get(key)
        if other is not None:
            other._drop_if_stopped()
        if _active.setdefault(key, self) is not self:
            return False
        self._watching = True
        try:
            self._connection = self._start()
        except BaseException:
            _active.pop(key, None)
            raise
        try:
            # threading.Thread.start() waits until the thread runs, which takes milliseconds
            # while the supervisor starts. A thread holds its arguments, and with them a
            # connection, until it exits: so it gets none.
            start_new_thread(self._keep_watch, ())
        except RuntimeError as error:  # the limit of threads is reached
            self._watching = False
            logger.warning(
                "Cannot watch the supervisor of runtime plugins (%s): "
                "should it be killed, it is not started again",
                error,
            )
        return True

    @property
    def connection(self) -> SupervisorConnection | None:
        """The connection to the supervisor; None after its exit, and in a fork of the engine."""
        return self._connection if self._owner == os.getpid() else None

    def stop(self, wait: bool, timeout: float | None) -> None:
        """Stop the plugins as :meth:`.RuntimePluginLauncher.stop_plugins` describes."""
        connection = self.connection
        if connection is None:
            return
        self._forget()
        try:
            self._pause.release()
        except RuntimeError:
            pass  # an earlier stop released it
        connection.request_stop()
        if wait:
            self._wait(connection, time.monotonic(), timeout)

    # --- inside -----------------------------------------------------------

    def _start(self, previous: int = 0) -> SupervisorConnection:
        # A supervisor that only finishes a stop starts nothing, so it waits for no other one,
        # which may wait for it.
        again = not self._stopping and (self._owner, self._label) in _stopped
        return start_supervisor(
            self._spec, self._run_id, self._label, self._python, previous, again
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
            if connection.wait_for_exit(left if watching else min(left, 0.1)):
                if not self._watching:
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
        # The engine's own threads handle its signals.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        attempt = previous = 0
        while True:
            started = time.monotonic()
            code = connection.reap_detaching_process()
            while connection.receive():
                if connection.stopped_by_signal:
                    self._forget()
            if connection.finished or self._owner != os.getpid():
                return
            # It was killed. The next one kills the orphaned processes and starts the plugins.
            if time.monotonic() - started > _RESPAWN_RESET_AFTER:
                attempt = 0
            previous = connection.pid or previous
            problem = None
            if not connection.pid:
                problem = f"it ended before it was ready ('{self._python}' exited with code {code})"
            while True:
                attempt += 1
                delay = backoff_delay(attempt, _RESPAWN_INITIAL, _RESPAWN_MAX)
                if problem is not None:
                    if self._stopping:
                        return  # nothing was started by it
                    logger.warning(
                        "Supervisor of runtime plugins of %s failed: %s; trying again in %.1f s",
                        self._label,
                        problem,
                        delay,
                    )
                if not self._stopping:
                    self._pause.acquire(timeout=delay)
                try:
                    connection = self._start(previous or 1)
                    break
                except Exception as error:  # noqa: BLE001 - also a lack of memory may pass
                    problem = str(error) or repr(error)
            self._connection = connection
            if self._stopping:
                connection.request_stop()

    def _forget(self) -> None:
        key = (self._owner, self._label)
        self._stopping = True
        if _active.get(key) is self:
            _stopped.add(key)
            _active.pop(key, None)


def stop_all() -> None:
    """Ask every supervisor of this process to stop; do not wait."""
    for keeper in list(_active.values()):
        keeper.stop(wait=False, timeout=None)


def report_exit() -> None:
    """Report to the supervisors of this process that it exits on its own; plugins may ask why."""
    for keeper in list(_active.values()):
        if keeper.connection is not None:
            keeper.connection.report_exit()
    receiver = sys.modules.get(f"{__package__}.logging_receiver")  # loaded on first use
    finish = getattr(receiver, "finish", None)  # missing while the module is being loaded
    if finish is not None:
        finish()
