"""Have plugins found in a child process, so that a hung file system holds nobody."""

from __future__ import annotations

import os
import signal

from lmcache_plugin_adapter.contract.backoff import backoff_delay
from lmcache_plugin_adapter.contract.log_records import ERROR, WARNING
from lmcache_plugin_adapter.contract.planner_pipe import HUNG_SECONDS, read_messages, write_message
from lmcache_plugin_adapter.messages.wording import span, uncapitalized
from lmcache_plugin_adapter.supervisor.output.plugin_output import OWN_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from lmcache_plugin_adapter.linux.event_loop import Loop, Timer
    from lmcache_plugin_adapter.supervisor.output.plugin_output import EventLog
    from lmcache_plugin_adapter.supervisor.processes.spawn import ChildSetup

_RETRY_INITIAL = 1.0
_RETRY_MAX = 30.0


class Planning:
    """Run the planner and hand over what it finds.

    Args:
        loop: The supervisor's loop.
        setup: How to fork.
        log: Where messages of the planner go.
        plan: What the child runs: ``plan(write_fd, skip)``.
        keep: Descriptors that it needs; all others are closed in it, so that a
            planner that hangs holds nothing open.
        adopt: Called with the number of the search and its result; a search
            that went on without a hung location may have a second one later.
        failed: Called with the number of a search that ended without one; the
            log says why.
    """

    def __init__(
        self,
        loop: Loop,
        setup: ChildSetup,
        log: EventLog,
        plan: Callable[[int, frozenset[str]], None],
        keep: Sequence[int],
        adopt: Callable[[int, dict[str, Any]], None],
        failed: Callable[[int], None],
    ) -> None:
        self._loop = loop
        self._setup = setup
        self._log = log
        self._plan = plan
        self._keep = keep
        self._adopt = adopt
        self._failed = failed
        self._runs: dict[int, _Run] = {}
        self._said: set[tuple[int, str]] = set()
        self._attempt = 0
        self._adopted = False
        self._cancelled = False
        self._search = 0
        self._timer: Timer | None = None

    def start(self) -> int:
        """Look for plugins, and return the number of this search: later ones have higher ones.

        Raises:
            OSError: No process could be made.
        """
        self._fork(self._search + 1, frozenset())
        self._search += 1
        self._said.clear()
        return self._search

    def begin(self) -> None:
        """Do what :meth:`start` does; where it fails, log that and try again by and by."""
        self._search += 1
        self._go_on(self._search, frozenset())

    def _go_on(self, search: int, skip: frozenset[str]) -> None:
        try:
            self._fork(search, skip)
        except OSError as error:
            cause = f"Cannot look for plugins: {uncapitalized(error.strerror or '')}"
            self._retry(cause, search, skip)

    def _fork(self, search: int, skip: frozenset[str]) -> None:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            pid = self._setup.fork()
        except OSError:
            os.close(read_end)
            os.close(write_end)
            raise
        if pid == 0:
            self._run_child(write_end, skip)
        os.close(write_end)
        os.set_blocking(read_end, False)
        self._runs[pid] = _Run(self, search, read_end, skip)

    def _retry(self, cause: str, search: int, skip: frozenset[str]) -> None:
        if self._cancelled:
            return
        self._attempt += 1
        delay = backoff_delay(self._attempt, _RETRY_INITIAL, _RETRY_MAX)
        self._log.say(ERROR, OWN_NAME, f"{cause}; trying again in {span(delay)}")
        self._timer = self._loop.call_later(delay, lambda: self._go_on(search, skip))

    def _run_child(self, fd: int, skip: frozenset[str]) -> None:
        try:
            last = 2
            for kept in sorted(each for each in {fd, *self._keep} if each > 2):
                os.closerange(last + 1, kept)
                last = kept
            os.closerange(last + 1, self._setup.most_files)
            self._plan(fd, skip)
        except BaseException as error:  # noqa: BLE001 - a child never returns to the loop
            write_message(fd, ("log", (ERROR, f"Cannot look for plugins: {error!r}")))
            os._exit(1)
        os._exit(0)

    def _broke_off(self, search: int, skip: frozenset[str]) -> None:
        """Take note that a planner ended without a result, as one that was killed."""
        cause = "The search for plugins ended before it was complete"
        if self._adopted:  # a reload: who asked for it is told
            self._log.say(ERROR, OWN_NAME, cause)
            self._failed(search)
        else:
            self._retry(cause, search, skip)

    def say_once(self, level: int, text: str) -> None:
        """Log what a planner says; one that starts over says much of it again."""
        if (level, text) not in self._said:
            self._said.add((level, text))
            self._log.say(level, OWN_NAME, text)

    def owns(self, pid: int) -> bool:
        """Whether ``pid`` is a planner; forgets it, as it has ended."""
        return self._runs.pop(pid, None) is not None

    def cancel(self) -> None:
        """End all planners, and start no more."""
        self._cancelled = True
        if self._timer is not None:
            self._timer.cancel()
        for pid, run in self._runs.items():
            run.close()
            os.kill(pid, signal.SIGKILL)


class _Run:
    """One planner and the pipe it reports on."""

    def __init__(self, planning: Planning, search: int, fd: int, skip: frozenset[str]) -> None:
        self._planning = planning
        self._search = search
        self._fd = fd
        self._skip = skip
        self._data = b""
        self._location: str | None = None
        self._done = False
        self._patience: Timer | None = None
        planning._loop.watch(fd, self._readable)
        self._expect()

    def close(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        if self._fd >= 0:
            self._planning._loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _expect(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = self._planning._loop.call_later(HUNG_SECONDS, self._hung)

    def _hung(self) -> None:
        log, name = self._planning._log, OWN_NAME
        if self._location is None:
            log.say(WARNING, name, "Looking for plugins takes long: some path does not answer")
            return
        log.say(
            WARNING,
            name,
            f"Location '{self._location}' does not answer: its plugins start when it does, "
            "the others go on",
        )
        self._planning._go_on(self._search, self._skip | {self._location})

    def _readable(self) -> None:
        try:
            part = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        if not part:
            if not self._done:
                self._planning._broke_off(self._search, self._skip)
            self.close()
            return
        messages, self._data = read_messages(self._data + part)
        for message in messages:
            self._take(message)

    def _take(self, message: tuple[str, Any]) -> None:
        kind, content = message
        if kind == "location":
            self._location = content
            self._expect()
        elif kind == "log":
            self._planning.say_once(*content)
        elif kind == "plan":
            self._done = True
            if self._patience is not None:
                self._patience.cancel()
            self._planning._adopted = True
            self._planning._adopt(self._search, content)
