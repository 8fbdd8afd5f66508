# SPDX-License-Identifier: Apache-2.0
"""``lmcache-plugins logs``: print the last lines of plugins, and follow new lines."""

from __future__ import annotations

import os
import select
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.console import ExitStatus, discard_stdout, print_problem
from lmcache_plugin_adapter.cli.supervisors.client import ANSWER_SECONDS
from lmcache_plugin_adapter.cli.supervisors.connection import SupervisorError, SupervisorGoneError
from lmcache_plugin_adapter.cli.supervisors.survey import survey
from lmcache_plugin_adapter.contract.log_records import wants_color
from lmcache_plugin_adapter.contract.plugin_states import State

from .formats import LogFormat, LogLine, formatter, to_json
from .printer import Printer
from .source import ALL_LINES, Source

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lmcache_plugin_adapter.cli.supervisors.survey import Selector, Survey

    from .printer import Filter

_GATHERING_SECONDS = 60.0
"""How long supervisors may send stored lines."""

_RECONNECT_SECONDS = 0.2
"""How often ``--follow`` tries to reach the next supervisor of an engine."""


def logs(
    names: tuple[str, ...],
    selector: Selector,
    wanted: Filter,
    *,
    follow: bool = False,
    form: LogFormat | None = None,
    as_json: bool = False,
) -> int:
    """Print lines of plugins; return the exit status.

    Args:
        names: Plugins; empty: all.
        selector: Engine processes.
        wanted: Which of their lines to print.
        follow: Continue with new lines.
        form: The form of lines; None: short for ``follow`` on a terminal, else timed.
        as_json: Print one JSON document a line.
    """
    found = survey(selector)
    if not found.supervisors:
        print_problem("error", found.why_empty)
        return max(found.print_problems(), ExitStatus.FAILED)
    unknown = found.unknown(names)
    status = found.print_problems(unknown)
    if unknown:
        return status
    for supervisor, plugin in found.plugins(names) if names else ():
        if plugin.reason and not plugin.lines:
            what = "has never started" if plugin.state is State.REFUSED else "has printed nothing"
            print_problem("note", f"{plugin.title} on {supervisor.label} {what}: {plugin.reason}")
    request: dict[str, Any] = {"op": "logs", "follow": follow}
    if not wanted.is_open:
        request["lines"] = ALL_LINES
    elif wanted.lines is not None:
        request["lines"] = wanted.lines
    sources = []
    targets = found.by_supervisor(names) if names else [(one, []) for one in found.supervisors]
    for supervisor, own_names in targets:
        which = {"names": own_names} if names else {"all": True}  # all: also later ones
        try:
            sources.append(Source(supervisor, {**request, **which}))
        except SupervisorGoneError:
            continue
        except SupervisorError as error:
            print_problem("error", str(error))
            status = ExitStatus.FAILED
    try:
        shown = to_json if as_json else _formatter(form, follow, found, names)
        printer = Printer(wanted, shown, as_json)
        return max(status, _print_all(sources, follow, printer))
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except BrokenPipeError:
        discard_stdout()
        return ExitStatus.OK


def _formatter(
    form: LogFormat | None, follow: bool, found: Survey, names: tuple[str, ...]
) -> Callable[[LogLine], str]:
    if form is None:
        form = LogFormat.SHORT if follow and sys.stdout.isatty() else LogFormat.TIMED
    expected = [(one.identity, plugin.title) for one, plugin in found.plugins(names)]
    processes = Counter(one.identity for one in found.supervisors)
    ambiguous = {process for process, count in processes.items() if count > 1}
    return formatter(form, wants_color(1, os.environ), expected, ambiguous)


def _print_all(sources: list[Source], follow: bool, printer: Printer) -> int:
    """Print the stored lines ordered by time, then new lines as they arrive."""
    stored: list[tuple[LogLine, int]] = []
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
    lost: list[Source] = []
    while waiting or lost:
        left = max(deadline - time.monotonic(), 0) * 1000 if gathering else None
        if lost and not gathering:
            left = _RECONNECT_SECONDS * 1000
        events = poll.poll(left)
        for fd, _ in events:
            source = waiting.get(fd)
            if source is None:
                raise BrokenPipeError
            stored += source.receive_or_fail(is_ambiguous=len(sources) > 1)
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
            printer.print_stored(sorted(stored, key=_time))
        else:
            printer.print(stored)
        stored = []
        if not follow:
            for source in waiting.values():
                source.connection.close()
            break
    printer.print(sorted(stored, key=_time))
    return status


def _follow_successors(lost: list[Source]) -> list[Source]:
    """Return the sources that have a connection again; keep in ``lost`` those that wait for one."""
    followed = {source: source.follow_successor() for source in lost}
    lost[:] = [source for source in lost if followed[source] is False]
    return [source for source in followed if followed[source]]


def _time(line: tuple[LogLine, int]) -> float:
    return line[0].when
