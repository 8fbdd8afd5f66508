"""Launch the runtime plugins of one engine process, and see that they never outlive it."""

from __future__ import annotations

import atexit
import importlib.util
import json
import logging
import os
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Mapping
from typing import Any

from . import pid1
from .backoff import backoff_delay
from .identity import ProcessIdentity, Role
from .link import LaunchError, Link, start_supervisor, supervisor_python
from .spec import LaunchSpec
from .sweep import new_run_id

__all__ = ["LaunchError", "RuntimePluginLauncher"]

logger = logging.getLogger(__name__)

_SLACK_SECONDS = 2.0
"""What a stop may take beyond the longest grace period before the caller goes on."""

_RESPAWN_INITIAL = 0.1
_RESPAWN_MAX = 30.0
_RESPAWN_RESET_AFTER = 30.0

_STATUS_SECONDS = 2.0
_FD = struct.Struct("i")

_active: dict[tuple[int, str, int], RuntimePluginLauncher] = {}
"""What runs, by process, role and worker: a second launch starts no second copy."""


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
        self._link: Link | None = None
        self._stopping = False
        self._watcher: threading.Thread | None = None
        # Held until a stop: a lock may be released anywhere, signal handlers included.
        self._pause = threading.Lock()
        self._owner = 0
        self._spec = b""
        self._run_id = ""
        self._python = ""

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
        key = (os.getpid(), self.identity.label, self.identity.worker_id)
        if _active.setdefault(key, self) is not self or self._running():
            logger.debug("Runtime plugins of %s run already", self.identity.label)
            return
        try:
            self._python = supervisor_python()
            self._run_id = new_run_id()
            config_json, notes = _config_json(self.config)
            self._spec = LaunchSpec(
                identity=self.identity,
                locations=locations,
                config_json=config_json,
                engine_pid=self._engine_pid or os.getpid(),
                run_id=self._run_id,
                python=self._python,
                notes=notes,
                metrics_module=_metrics_module() if section.get("metrics") is True else "",
            ).to_bytes()
            link = self._start()
        except Exception as error:
            del _active[key]
            if isinstance(error, LaunchError):
                raise
            raise LaunchError(f"cannot launch runtime plugins: {error!r}") from error
        self._owner = os.getpid()
        self._stopping = False
        self._pause = threading.Lock()
        self._pause.acquire()
        self._link = link
        self._watcher = threading.Thread(
            target=self._watch, args=(link,), name="lmcache-plugins", daemon=True
        )
        try:
            self._watcher.start()
        except RuntimeError as error:  # the limit of threads is reached
            logger.warning(
                "Cannot watch the supervisor of runtime plugins (%s): "
                "should it be killed, it is not started again",
                error,
            )
            self._watcher = None
        if os.getpid() == 1:
            pid1.wait_at_exit()
            atexit.unregister(_stop_all)
            atexit.register(_stop_all)  # runs first: exit handlers run in reverse

    def stop_plugins(self, wait: bool = True, timeout: float | None = None) -> None:
        """Stop the plugins: SIGTERM, their grace period, SIGKILL. Never raises; idempotent.

        Args:
            wait: Return when all are gone, or when the longest grace period
                is over; otherwise at once, and the supervisor sees to the end.
            timeout: Wait so many seconds at most, whatever the grace period.
        """
        link = self._link
        if link is None or self._owner != os.getpid():
            return  # never launched, or the copy of an engine that forked
        self._forget()
        try:
            self._pause.release()
        except RuntimeError:
            pass  # released by an earlier stop
        link.ask_to_stop()
        if wait:
            limit = link.grace + _SLACK_SECONDS
            deadline = time.monotonic() + (limit if timeout is None else min(timeout, limit))
            _wait_for_end(link, deadline)
            # Where it was killed meanwhile, another one is clearing up.
            while self._watcher is not None and self._watcher.is_alive():
                _wait_for_end(self._link or link, deadline)
                if time.monotonic() > deadline:
                    return
                time.sleep(0.001)

    def status(self, timeout: float = _STATUS_SECONDS) -> dict[str, Any] | None:
        """Return what the supervisor says of its plugins; None if none answers.

        The shape is that of ``lmcache-plugins status --json`` for one
        supervisor.

        Args:
            timeout: Seconds to wait for the whole answer.
        """
        link = self._link
        if link is None or self._owner != os.getpid():
            return None
        deadline = time.monotonic() + timeout
        ours, theirs = socket.socketpair()
        with ours:
            try:
                with theirs:
                    # Of a supervisor that is stopped the queue may be full. socket.send_fds
                    # would block then: it forgets its flags in some Pythons.
                    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _FD.pack(theirs.fileno()))
                    link.connection.sendmsg([b"C"], [rights], socket.MSG_DONTWAIT)
                ours.sendall(b'{"op": "status"}\n')
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

    def _running(self) -> bool:
        link = self._link
        return link is not None and self._owner == os.getpid() and not self._stopping

    def _start(self, previous: int = 0) -> Link:
        return start_supervisor(
            self._spec, self._run_id, self.identity.label, self._python, previous
        )

    def _watch(self, link: Link) -> None:
        """On a thread that sleeps in one read: start another supervisor if this one is killed."""
        # The engine's signals are for its own threads.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        attempt = previous = 0
        while True:
            started = time.monotonic()
            code = link.reap_helper()
            while link.receive():
                pass
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
                        self.identity.label,
                        problem,
                        delay,
                    )
                if not self._stopping:
                    self._pause.acquire(timeout=delay)
                try:
                    link = self._start(previous or 1)
                    break
                except LaunchError as error:
                    problem = str(error)
            self._link = link
            if self._stopping:
                link.ask_to_stop()

    def _forget(self) -> None:
        self._stopping = True
        _active.pop((self._owner, self.identity.label, self.identity.worker_id), None)


def _stop_all() -> None:
    """As PID 1, whose end is not seen but shared: ask for the stop before it."""
    for launcher in list(_active.values()):
        launcher.stop_plugins(wait=False)


def _wait_for_end(link: Link, deadline: float) -> None:
    """Wait until the supervisor has ended; safe in signal handlers and in several threads."""
    poll = select.poll()
    # The connection's end may be read by the watching thread at the same time:
    # hang-up is a state that all see. The pidfd tells when the process is gone.
    if link.pidfd >= 0:
        poll.register(link.pidfd, select.POLLIN)
    else:
        poll.register(link.connection, select.POLLHUP)
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            return


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
