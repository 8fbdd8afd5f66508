# SPDX-License-Identifier: Apache-2.0
"""Select and print the lines of plugins."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from datetime import datetime
from datetime import time as datetime_time
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.inputs import UsageError
from lmcache_plugin_adapter.configuration.durations import read_duration
from lmcache_plugin_adapter.contract.log_records import DEBUG
from lmcache_plugin_adapter.messages.problem import InvalidValueError, quoted

from .formats import LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable

    from .formats import LogLine


@dataclass(frozen=True)
class Filter:
    """Which lines to print.

    Attributes:
        since: Lines from this time on, in seconds since 1970; None: of any time.
        level: Lines at least as urgent as this level, as syslog counts.
        lines: Number of last lines; None: as many as supervisors send.
    """

    since: float | None = None
    level: int = DEBUG
    lines: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether every line of any time and level is printed."""
        return self.since is None and self.level >= DEBUG

    def admits(self, line: LogLine) -> bool:
        """Return whether to print a line."""
        return line.level <= self.level and (self.since is None or line.when >= self.since)


def make_filter(since: str | None, level: str | None, lines: int | None) -> Filter:
    """Return the filter that options ask for.

    Args:
        since: A duration before now, a time of today, or a date and a time.
        level: The name of a level.
        lines: Number of last lines.

    Raises:
        UsageError: ``since`` is no time.
    """
    return Filter(
        None if since is None else _read_time(since),
        DEBUG if level is None else LEVELS[level],
        lines,
    )


def _read_time(text: str) -> float:
    """Return seconds since 1970."""
    now = datetime.now()
    try:
        return now.timestamp() - read_duration(text)
    except InvalidValueError:
        pass
    if ":" in text or "-" in text:
        with contextlib.suppress(ValueError):
            return datetime.combine(now.date(), datetime_time.fromisoformat(text)).timestamp()
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    raise UsageError(
        f"--since is {quoted(text)}: accepted are a duration such as 30s, 10m or 1h30m, a time "
        "such as 14:30, and a date with a time such as '2026-11-22 14:30'"
    )


class Printer:
    """Prints the lines that are wanted.

    Args:
        wanted: Which lines.
        form: Formats one line.
        as_json: Whether the output is JSON, so that notes go to stderr.
    """

    def __init__(self, wanted: Filter, form: Callable[[LogLine], str], as_json: bool) -> None:
        self._wanted = wanted
        self._form = form
        self._as_json = as_json

    def print_stored(self, lines: list[tuple[LogLine, int]]) -> None:
        """Print the last lines, ordered by time."""
        kept = [one for one in lines if self._wanted.admits(one[0])]
        if self._wanted.lines is not None:
            kept = kept[-self._wanted.lines :] if self._wanted.lines else []
        self.print(kept)

    def print(self, lines: list[tuple[LogLine, int]]) -> None:
        """Print lines, and how many are missed between them."""
        for line, missed in lines:
            if missed:
                text = f"… {missed:,} lines missed: they came faster than they were read"
                print(text, file=sys.stderr if self._as_json else sys.stdout)
            if self._wanted.admits(line):
                print(self._form(line))
        sys.stdout.flush()
