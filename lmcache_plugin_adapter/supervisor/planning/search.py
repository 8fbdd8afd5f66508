# SPDX-License-Identifier: Apache-2.0
"""Search for plugins in child processes, so that a hung file system blocks nothing else."""

from __future__ import annotations

import errno
import gc
import os
import signal

from lmcache_plugin_adapter.contract.backoff import backoff_delay
from lmcache_plugin_adapter.contract.log_records import ERROR, WARNING
from lmcache_plugin_adapter.contract.planned_plugin import SupervisorPlan
from lmcache_plugin_adapter.contract.planner_pipe import HUNG_SECONDS, read_messages, write_message
from lmcache_plugin_adapter.linux.event_loop import NO_TIMER
from lmcache_plugin_adapter.messages.wording import raised_at, span, uncapitalized
from lmcache_plugin_adapter.supervisor.processes.spawn import file_limit_problem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from lmcache_plugin_adapter.supervisor.services import Services

_RETRY_INITIAL = 1.0
_RETRY_MAX = 30.0

_PATIENCE_SECONDS = 30.0
"""How long clients wait for a search that does not answer at all."""

_MOST_CLOSED = 65536
"""How many descriptors are closed where those that are open cannot be listed."""


class Search:
    """Run the planner in children, and pass on what it finds.

    Args:
        services: The loop, the log and the children.
        plan: Runs in the child: ``plan(write_fd, skip)``.
        keep: Descriptors that the child needs. It closes all others, so that a
            hung child holds nothing open.
        adopt: Called with the number of the search and its result. A search
            that skipped a hung location may have a second result later.
        failed: Called with the number of a search that ended without a result,
            after the log got the reason.
    """

    def __init__(
        self,
        services: Services,
        plan: Callable[[int, frozenset[str]], None],
        keep: Sequence[int],
        adopt: Callable[[int, SupervisorPlan], None],
        failed: Callable[[int, str], None],
    ) -> None:
        self._services = services
        self._plan = plan
        self._keep = keep
        self._on_plan = adopt
        self._failed = failed
        self._children: set[_Child] = set()
        self._logged: set[tuple[int, str]] = set()
        self._attempt = 0
        self._adopted = False
        self._cancelled = False
        self._number = 0
        self._timer = NO_TIMER

    def start(self) -> int:
        """Start a search and return its number; later searches have higher numbers.

        Raises:
            OSError: No process could be started.
        """
        self._fork(self._number + 1, frozenset())
        self._number += 1
        self._logged.clear()
        for child in [one for one in self._children if one.hung and not one.done]:
            self._end(child)  # the new one waits for the same location
        return self._number

    def begin(self) -> None:
        """Start a search; if that fails, log the error and retry later."""
        self._number += 1
        self.try_fork(self._number, frozenset())

    def try_fork(self, number: int, skip: frozenset[str]) -> None:
        """Start a child, or log why that failed and retry later."""
        try:
            self._fork(number, skip)
        except OSError as error:
            cause = f"Cannot search for plugins: {uncapitalized(error.strerror or '')}"
            if error.errno == errno.EMFILE:
                cause += f" ({file_limit_problem(max(self._services.plugin_count, 1))})"
            self._retry(cause, number, skip)

    def _fork(self, number: int, skip: frozenset[str]) -> None:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            pid = self._services.setup.fork()
        except OSError:
            os.close(read_end)
            os.close(write_end)
            raise
        if pid == 0:
            self._run_child(write_end, skip)
        os.close(write_end)
        os.set_blocking(read_end, False)
        self._services.reaper.searches.add(pid)
        self._children.add(_Child(self, self._services, number, read_end, skip, pid))

    def _retry(self, cause: str, number: int, skip: frozenset[str]) -> None:
        if self._cancelled:
            return
        self._attempt += 1
        delay = backoff_delay(self._attempt, _RETRY_INITIAL, _RETRY_MAX)
        self._services.events.log(ERROR, f"{cause}; trying again in {span(delay)}")
        retry = self._services.loop.call_later
        self._timer = retry(delay, lambda: self.try_fork(number, skip))

    def _run_child(self, fd: int, skip: frozenset[str]) -> None:
        gc.disable()  # its exit frees all
        try:
            _close_all_but({0, 1, 2, fd, *self._keep}, self._services.setup.most_files)
            self._plan(fd, skip)
        except BaseException as error:  # noqa: BLE001 - a child never returns to the loop
            write_message(fd, ("log", (ERROR, f"Cannot search for plugins: {error!r}")))
            os._exit(1)
        os._exit(0)

    def adopt(self, number: int, values: tuple[Any, ...]) -> None:
        """Pass on the result of a search."""
        self._adopted = True
        try:
            self._on_plan(number, SupervisorPlan.from_values(values))
        except Exception as error:  # noqa: BLE001 - clients wait for an answer
            self.fail(number, f"Cannot use what the search found: {error!r} at {raised_at(error)}")

    def fail(self, number: int, cause: str) -> None:
        """Log why a search has no result, and answer the clients that wait for it."""
        self.log_once(ERROR, cause)
        self._failed(number, uncapitalized(cause))

    def closed(self, child: _Child) -> None:
        """Forget a child; retry if it ended without a result, for example because it was killed."""
        self._children.discard(child)
        if child.done:
            return
        cause = "The search for plugins ended before it was complete"
        if self._adopted:  # a reload: the client that requested it gets the error
            self._services.events.log(ERROR, cause)
            error = "the search for plugins failed; the log has the reason"
            self._failed(child.number, error)
        else:
            self._retry(cause, child.number, child.skip)

    def log_once(self, level: int, text: str) -> None:
        """Log a message of the planner, which repeats messages when it starts over."""
        if (level, text) not in self._logged:
            self._logged.add((level, text))
            self._services.events.log(level, text)

    def cancel(self) -> None:
        """Kill all children, and start no more."""
        self._cancelled = True
        self._timer.cancel()
        for child in list(self._children):
            self._end(child)

    def _end(self, child: _Child) -> None:
        self._children.discard(child)
        child.close()
        if child.pid in self._services.reaper.searches:
            os.kill(child.pid, signal.SIGKILL)


def _close_all_but(kept: set[int], most: int) -> None:
    """Close what is open; without ``/proc``, what could be, which takes long under some limits."""
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        numbers = list(range(min(most, _MOST_CLOSED)))
    for number in numbers:
        if number not in kept:
            try:
                os.close(number)
            except OSError:
                pass  # that of the listing itself


class _Child:
    """One planner and the pipe on which it reports."""

    def __init__(
        self,
        search: Search,
        services: Services,
        number: int,
        fd: int,
        skip: frozenset[str],
        pid: int,
    ) -> None:
        self._search = search
        self._services = services
        self.number = number
        self._fd = fd
        self.skip = skip
        self.pid = pid
        self.done = False
        self.hung = False
        """Whether it waits for a location, and another child searches the others."""
        self._data = b""
        self._location: str | None = None
        self._timer = NO_TIMER
        self._silent = False
        services.loop.watch(fd, self._readable)
        self._expect()

    def close(self) -> None:
        self._timer.cancel()
        self._services.loop.unwatch(self._fd)
        os.close(self._fd)

    def _expect(self) -> None:
        """Expect the next message within :data:`HUNG_SECONDS`."""
        self._timer.cancel()
        self._timer = self._services.loop.call_later(HUNG_SECONDS, self._hung)

    def _hung(self) -> None:
        if self._location is None:
            text = "The search for plugins takes long: some path does not answer"
            if self._silent:  # for a long time: clients have waited enough
                self.hung = True
                self._search.fail(self.number, text)
                return
            self._silent = True
            self._services.events.log(WARNING, text)
            self._timer = self._services.loop.call_later(_PATIENCE_SECONDS, self._hung)
            return
        self._services.events.log(
            WARNING,
            f"Location '{self._location}' does not answer: its plugins start when it does, "
            "the others continue",
        )
        self.hung = True
        self._search.try_fork(self.number, self.skip | {self._location})

    def _readable(self) -> None:
        try:
            part = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        if not part:
            self.close()
            self._search.closed(self)
            return
        messages, self._data = read_messages(self._data + part)
        for kind, content in messages:
            if kind == "location":
                self._location = content
                self._expect()
            elif kind == "log":
                self._search.log_once(*content)
            elif kind == "impossible":
                self.done = True
                self._timer.cancel()
                self._search.fail(self.number, f"Cannot search for plugins: {content}")
            elif kind == "plan":
                self.done = True
                self._timer.cancel()
                self._search.adopt(self.number, content)
