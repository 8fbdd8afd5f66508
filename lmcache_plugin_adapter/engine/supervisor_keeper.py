"""One run of plugins as the engine sees it: a supervisor, replaced when it is killed.

A launcher that is used again makes another run, so that nothing of an earlier
one, which may still be ending, acts on it.
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

from .supervisor_connection import Link, start_supervisor

logger = logging.getLogger(__name__)

SLACK_SECONDS = 2.0
"""What a stop may take beyond the longest grace period before the caller goes on."""

_RESPAWN_INITIAL = 0.1
_RESPAWN_MAX = 30.0
_RESPAWN_RESET_AFTER = 30.0

_active: dict[tuple[int, str], Run] = {}
"""What runs, by process and identity: a second launch starts no second copy."""

_stopped: set[tuple[int, str]] = set()
"""What was stopped: a new run starts when nothing is left of those before it."""


class Run:
    """A supervisor for this process's plugins, for as long as they shall run.

    Args:
        spec: A launch spec, as :meth:`.contract.launch_spec.LaunchSpec.to_bytes` makes it.
        run_id: The token of this run.
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
        self._link: Link | None = None
        self._watching = False
        # Held until a stop: a lock may be released anywhere, signal handlers included.
        self._pause = threading.Lock()
        self._pause.acquire()

    def begin(self) -> bool:
        """Start the supervisor; False where a run of this identity is under way.

        Raises:
            LaunchError: No supervisor could be started.
        """
        key = (self._owner, self._label)
        other = _active.get(key)
        if other is not None:
            other._look()
        if _active.setdefault(key, self) is not self:
            return False
        self._watching = True
        try:
            self._link = self._start()
        except BaseException:
            _active.pop(key, None)
            raise
        try:
            # Not threading.Thread, whose start() waits until the thread runs: that may take
            # milliseconds beside a supervisor that starts. And without arguments: a thread
            # keeps those, and with them a connection, until it ends.
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
    def link(self) -> Link | None:
        """The connection to the supervisor; None once it ended, and in a copy of the engine."""
        return self._link if self._owner == os.getpid() else None

    def stop(self, wait: bool, timeout: float | None) -> None:
        """Stop the plugins; see :meth:`.engine.launcher.RuntimePluginLauncher.stop_plugins`."""
        link = self.link
        if link is None:
            return
        self._forget()
        try:
            self._pause.release()
        except RuntimeError:
            pass  # released by an earlier stop
        link.ask_to_stop()
        if wait:
            self._wait(link, time.monotonic(), timeout)

    # --- inside -----------------------------------------------------------

    def _start(self, previous: int = 0) -> Link:
        # A run that is to stop starts nothing, and waits for none that may wait for it.
        again = not self._stopping and (self._owner, self._label) in _stopped
        return start_supervisor(
            self._spec, self._run_id, self._label, self._python, previous, again
        )

    def _look(self) -> None:
        """Where no thread watches: make way for another run if the supervisor was told to stop."""
        link = self._link
        if link is not None and not self._watching:
            link.poll_messages()
            if link.orderly:
                self._forget()

    def _wait(self, link: Link, began: float, timeout: float | None) -> None:
        """Wait until nothing is left; where the supervisor is killed meanwhile, for the next."""
        while True:
            watching = self._watching
            if not watching:  # then nobody else reads what it says
                link.poll_messages()
            limit = link.grace + SLACK_SECONDS
            left = began + (limit if timeout is None else min(timeout, limit)) - time.monotonic()
            if left <= 0:
                return
            if link.wait_for_end(left if watching else min(left, 0.1)):
                if not self._watching:
                    self._link = None
                    return
                link = self._link or link
                time.sleep(0.001)

    def _keep_watch(self) -> None:
        try:
            self._watch()
            self._link = None  # its descriptors close
        finally:
            self._watching = False

    def _watch(self) -> None:
        """On a thread that sleeps in one poll: start another supervisor if this one is killed."""
        link = self._link
        if link is None:
            return
        # The engine's signals are for its own threads.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        attempt = previous = 0
        while True:
            started = time.monotonic()
            code = link.reap_helper()
            while link.receive():
                if link.orderly:
                    self._forget()
            if link.finished or self._owner != os.getpid():
                return
            # It was killed. Another one ends what it left, and goes on unless we stop.
            if time.monotonic() - started > _RESPAWN_RESET_AFTER:
                attempt = 0
            previous = link.pid or previous
            problem = None
            if not link.pid:
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
                    link = self._start(previous or 1)
                    break
                except Exception as error:  # noqa: BLE001 - a lack of memory, too, may pass
                    problem = str(error) or repr(error)
            self._link = link
            if self._stopping:
                link.ask_to_stop()

    def _forget(self) -> None:
        key = (self._owner, self._label)
        self._stopping = True
        if _active.get(key) is self:
            _stopped.add(key)
            _active.pop(key, None)


def stop_all() -> None:
    """Ask every run of this process to stop; does not wait."""
    for run in list(_active.values()):
        run.stop(wait=False, timeout=None)


def say_exit() -> None:
    """Tell the supervisors of this process that it exits by itself; their plugins may ask."""
    for run in list(_active.values()):
        if run.link is not None:
            run.link.say_exit()
    relay = sys.modules.get(f"{__package__}.logging_receiver")  # loaded where it is used
    finish = getattr(relay, "finish", None)  # not there yet while it is being loaded
    if finish is not None:
        finish()
