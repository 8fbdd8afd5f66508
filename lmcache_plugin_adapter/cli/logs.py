"""``lmcache-plugins logs``: the last lines of plugins, and those that follow."""

from __future__ import annotations

import os
import select
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.supervisors.client import (
    ANSWER_SECONDS,
    Conversation,
    GoneError,
    RefusedError,
    check_answer,
)
from lmcache_plugin_adapter.cli.supervisors.survey import Selector, survey
from lmcache_plugin_adapter.contract.log_records import ERROR, WARNING, wants_color
from lmcache_plugin_adapter.messages.problem import quoted

from .cli_fleet import report_problems
from .console import complain

if TYPE_CHECKING:
    from typing import Any

    from lmcache_plugin_adapter.cli.supervisors.survey import SupervisorStatus

    Line = tuple[float, str, int, str, int]
    """Time, where it comes from, level, text, lines missed before it."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        names: Plugins; empty: all.
        selector: On these engine processes only.
        follow: Go on with what they print from now on.
        lines: How many lines at first; None: as many as supervisors give.
    """

    names: tuple[str, ...] = ()
    selector: Selector = field(default_factory=Selector)
    follow: bool = False
    lines: int | None = None


class _Source:
    """The lines of one supervisor."""

    def __init__(self, one: SupervisorStatus, names: list[str], request: Request) -> None:
        asked: dict[str, Any] = {"op": "logs", "names": names, "follow": request.follow}
        if request.lines is not None:
            asked["lines"] = request.lines
        self.label = one.label
        self.expected: int | None = None
        """Lines of before that are still to come; None: not known yet."""
        self.conversation = Conversation(one.found, asked, time.monotonic() + ANSWER_SECONDS)

    @property
    def complete(self) -> bool:
        """Whether all lines of before have come."""
        return self.conversation.ended or self.expected == 0

    def receive(self, origin: bool) -> list[Line]:
        """Return what has arrived; ``origin``: each line says which engine it is of.

        Raises:
            RefusedError: What arrives is no answer.
        """
        lines: list[Line] = []
        for message in self.conversation.receive():
            if self.expected is None:
                count = check_answer(message).get("lines")
                self.expected = count if isinstance(count, int) else 0
                continue
            try:
                name = quoted(str(message["name"]))[1:-1]
                if origin:
                    name = f"{name} on {self.label}"
                skipped = int(message.get("skipped", 0))
                line = float(message["time"]), name, int(message["level"]), str(message["text"])
            except (KeyError, TypeError, ValueError):
                raise RefusedError(f"{self.label}: it sends what is no line of a log") from None
            self.expected = max(self.expected - 1 - skipped, 0)
            lines.append((*line, skipped))
        return lines


def logs(request: Request) -> int:
    """Print lines of plugins; return the exit status."""
    fleet = survey(request.selector)
    if not fleet.supervisors:
        complain("error", fleet.nothing)
        return max(report_problems(fleet), 1)
    unknown = fleet.unknown(request.names)
    if unknown:
        return report_problems(fleet, unknown)
    wanted: dict[int, tuple[SupervisorStatus, list[str]]] = {}
    for one, plugin in fleet.named(request.names):
        wanted.setdefault(id(one), (one, []))[1].append(plugin.name)
    status = report_problems(fleet)
    sources = []
    for one, names in wanted.values():
        try:
            sources.append(_Source(one, names, request))
        except GoneError:
            continue
        except RefusedError as refused:
            complain("error", str(refused))
            status = 1
    try:
        return max(status, _print_all(sources, request))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Nobody reads any more; Python flushes once more at exit, and must not fail there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _print_all(sources: list[_Source], request: Request) -> int:
    """Print the lines of before, by time, then each line as it comes."""
    printer = _Printer()
    origin = len(sources) > 1
    before: list[Line] = []
    waiting = {source.conversation.fileno(): source for source in sources}
    poll = select.poll()
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    if request.follow:
        poll.register(sys.stdout.fileno(), 0)  # a pipe's reader that goes is an error there
    status = 0
    gathering = True
    deadline = time.monotonic() + ANSWER_SECONDS
    while waiting:
        left = max(deadline - time.monotonic(), 0) * 1000 if gathering else None
        events = poll.poll(left)
        for fd, _ in events:
            source = waiting.get(fd)
            if source is None:
                raise BrokenPipeError
            try:
                before += source.receive(origin)
            except RefusedError as refused:
                complain("error", str(refused))
                source.conversation.ended = True
                status = 1
            if source.conversation.ended:
                poll.unregister(fd)
                source.conversation.close()
                del waiting[fd]
        if gathering and events and not all(source.complete for source in waiting.values()):
            continue
        if gathering:
            gathering = False
            for source in waiting.values():
                if source.expected is None:
                    complain("error", f"{source.label}: its supervisor does not answer")
                    status = 1
            before.sort(key=lambda line: line[0])
            if request.lines is not None:
                before = before[-request.lines :] if request.lines else []
        printer.print(before)
        before = []
        if not request.follow and not events:
            break
    printer.print(sorted(before, key=lambda line: line[0]))
    return status


class _Printer:
    def __init__(self) -> None:
        self._color = wants_color(1, os.environ)

    def print(self, lines: list[Line]) -> None:
        """Print lines with time and plugin; colours show errors and warnings."""
        for when, name, level, text, skipped in lines:
            if skipped:
                print(f"… {skipped:,} lines missed: they came faster than they were read")
            second = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
            shown = quoted(text.replace("\t", "    "))[1:-1]
            line = f"{second}.{int(when % 1 * 1000):03d} [{name}] {shown}"
            if self._color and level <= WARNING:
                line = f"\x1b[{31 if level <= ERROR else 33}m{line}\x1b[0m"
            print(line)
        sys.stdout.flush()
