# SPDX-License-Identifier: Apache-2.0
"""``lmcache-plugins logs``: print the last lines of plugins, and follow new lines."""

from __future__ import annotations

import os
import select
import sys
import time
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.console import ExitStatus, discard_stdout, print_problem, printable
from lmcache_plugin_adapter.cli.supervisors.client import ANSWER_SECONDS
from lmcache_plugin_adapter.cli.supervisors.connection import (
    Connection,
    SupervisorError,
    SupervisorGoneError,
    awaits_supervisor,
    check_answer,
)
from lmcache_plugin_adapter.cli.supervisors.survey import survey
from lmcache_plugin_adapter.contract.log_records import ERROR, WARNING, wants_color

_MOST_SECONDS = 32503680000
"""Seconds since 1970 that a log line may have: until the year 3000."""

_STORED_BYTES = 256 << 20
_GATHERING_SECONDS = 60.0
"""How many stored lines one supervisor may send, and for how long all of them may."""

if TYPE_CHECKING:
    from typing import Any

    from lmcache_plugin_adapter.cli.supervisors.status_answer import SupervisorStatus
    from lmcache_plugin_adapter.cli.supervisors.survey import Selector

    Line = tuple[float, str, int, str, int]
    """Time, plugin, level, text, number of lines missed before it."""


def logs(
    names: tuple[str, ...], selector: Selector, *, follow: bool = False, lines: int | None = None
) -> int:
    """Print lines of plugins; return the exit status.

    Args:
        names: Plugins; empty: all.
        selector: Engine processes.
        follow: Continue with new lines.
        lines: Number of last lines; None: as many as supervisors send.
    """
    found = survey(selector)
    if not found.supervisors:
        print_problem("error", found.why_empty)
        return max(found.print_problems(), ExitStatus.FAILED)
    unknown = found.unknown(names)
    status = found.print_problems(unknown)
    if unknown:
        return status
    request: dict[str, Any] = {"op": "logs", "follow": follow}
    if lines is not None:
        request["lines"] = lines
    sources = []
    targets = found.by_supervisor(names) if names else [(one, []) for one in found.supervisors]
    for supervisor, own_names in targets:
        which = {"names": own_names} if names else {"all": True}  # all: also later ones
        try:
            sources.append(_Source(supervisor, {**request, **which}))
        except SupervisorGoneError:
            continue
        except SupervisorError as error:
            print_problem("error", str(error))
            status = ExitStatus.FAILED
    try:
        return max(status, _print_all(sources, follow, lines))
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        discard_stdout()
        return ExitStatus.OK


_RECONNECT_SECONDS = 0.2
"""How often ``--follow`` tries to reach the next supervisor of an engine."""

_SEARCH_SECONDS = 20.0
"""How long the next supervisor may take to find the plugins that are followed."""

_ALL_LINES = 1_000_000


class _Source:
    """The lines of one supervisor's plugins."""

    def __init__(self, supervisor: SupervisorStatus, request: dict[str, Any]) -> None:
        self.label = supervisor.label
        self.stored_bytes = 0
        self.expected: int | None = None
        """Number of stored lines that are still to come; None: not known yet."""
        self._address = supervisor.address
        self._request = request
        self.failed = False
        """Whether an error was printed, after which no more comes."""
        self._succeeds = False
        self._unknown_until = 0.0
        deadline = time.monotonic() + ANSWER_SECONDS
        self.connection = Connection(supervisor.address, request, deadline)

    def follow_successor(self) -> bool | None:
        """Connect to the supervisor that takes the place of one that was killed.

        Returns:
            Whether this follows one again; None if none will come.
        """
        request = {**self._request, "lines": _ALL_LINES}
        try:
            self.connection = Connection(self._address, request, time.monotonic())
        except SupervisorGoneError:
            return False if awaits_supervisor(self._address) else None
        except SupervisorError:
            return False  # its queue of connections is full
        self.expected = None
        if not self._succeeds:
            print_problem("note", f"{self.label}: another supervisor has taken its place")
            self._succeeds = True
            self._unknown_until = time.monotonic() + _SEARCH_SECONDS
        return True

    def receive_or_fail(self, with_label: bool) -> list[Line]:
        """Do what :meth:`receive` does; print an error, after which no more comes."""
        try:
            return self.receive(with_label)
        except SupervisorError as error:
            self.connection.ended = True
            if not self._succeeds or time.monotonic() > self._unknown_until:
                print_problem("error", str(error))
                self.failed = True
            return []  # else a new supervisor that does not know its plugins yet

    @property
    def complete(self) -> bool:
        """Whether all stored lines have arrived."""
        return self.connection.ended or self.expected == 0

    def receive(self, with_label: bool) -> list[Line]:
        """Return the lines that have arrived; ``with_label``: with the engine of each line.

        Raises:
            SupervisorError: The data is not an answer.
        """
        lines: list[Line] = []
        for message in self.connection.receive():
            if self.expected is None:
                count = check_answer(message).get("lines")
                self.expected = count if isinstance(count, int) else 0
                continue
            try:
                name = printable(str(message["name"]))
                if with_label:
                    name = f"{name} on {self.label}"
                missed = int(message.get("skipped", 0))
                line = float(message["time"]), name, int(message["level"]), str(message["text"])
                valid = 0 <= line[0] < _MOST_SECONDS
            except (KeyError, TypeError, ValueError):
                valid = False
            if not valid:
                text = f"{self.label}: the supervisor sent a message that is no log line"
                raise SupervisorError(text)
            self._succeeds = False  # the next successor is another one
            self.expected = max(self.expected - 1 - missed, 0)
            lines.append((*line, missed))
            self.stored_bytes += len(line[3])
        if self.expected and self.stored_bytes > _STORED_BYTES:
            raise SupervisorError(f"{self.label}: the supervisor sends stored lines without end")
        return lines


def _print_all(sources: list[_Source], follow: bool, count: int | None) -> int:
    """Print the stored lines ordered by time, then new lines as they arrive."""
    color = wants_color(1, os.environ)
    stored: list[Line] = []
    waiting = {source.connection.fileno(): source for source in sources}
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    if follow:
        poll.register(sys.stdout.fileno(), 0)  # an error there: the reader of the pipe is gone
    status: int = ExitStatus.OK
    gathering = True
    began = time.monotonic()
    deadline = began + ANSWER_SECONDS
    lost: list[_Source] = []
    while waiting or lost:
        left = max(deadline - time.monotonic(), 0) * 1000 if gathering else None
        if lost and not gathering:
            left = _RECONNECT_SECONDS * 1000
        events = poll.poll(left)
        for fd, _ in events:
            source = waiting.get(fd)
            if source is None:
                raise BrokenPipeError
            stored += source.receive_or_fail(with_label=len(sources) > 1)
            if source.failed:
                status = ExitStatus.FAILED
            if source.connection.ended:
                poll.unregister(fd)
                source.connection.close()
                del waiting[fd]
                if follow and not source.failed:
                    lost.append(source)
        if not gathering:
            for source in _follow_successors(lost):
                waiting[source.connection.fileno()] = source
                poll.register(source.connection.fileno(), select.POLLIN)
        in_time = time.monotonic() < began + _GATHERING_SECONDS
        complete = all(source.complete for source in waiting.values())
        if gathering and events and in_time and not complete:
            continue
        if gathering:
            gathering = False
            for source in waiting.values():
                if source.expected is None:
                    print_problem("error", f"{source.label}: its supervisor does not answer")
                    status = ExitStatus.FAILED
            stored.sort(key=_time)
            if count is not None:
                stored = stored[-count:] if count else []
        _print(stored, color)
        stored = []
        if not follow:
            for source in waiting.values():
                source.connection.close()
            break
    _print(sorted(stored, key=_time), color)
    return status


def _follow_successors(lost: list[_Source]) -> list[_Source]:
    """Return the sources that have a connection again; keep in ``lost`` those that wait for one."""
    followed = {source: source.follow_successor() for source in lost}
    lost[:] = [source for source in lost if followed[source] is False]
    return [source for source in followed if followed[source]]


def _time(line: Line) -> float:
    return line[0]


def _print(lines: list[Line], color: bool) -> None:
    for when, name, level, text, missed in lines:
        if missed:
            print(f"… {missed:,} lines missed: they came faster than they were read")
        second = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
        shown = printable(text.replace("\t", "    "))
        line = f"{second}.{int(when % 1 * 1000):03d} [{name}] {shown}"
        if color and level <= WARNING:
            line = f"\x1b[{31 if level <= ERROR else 33}m{line}\x1b[0m"
        print(line)
    sys.stdout.flush()
