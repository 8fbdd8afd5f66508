# SPDX-License-Identifier: Apache-2.0
"""Receive the lines of one supervisor's plugins, also after it has been replaced."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.console import print_problem, printable
from lmcache_plugin_adapter.cli.supervisors.client import ANSWER_SECONDS
from lmcache_plugin_adapter.cli.supervisors.connection import (
    Connection,
    SupervisorError,
    SupervisorGoneError,
    awaits_supervisor,
    check_answer,
)

from .formats import LogLine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from lmcache_plugin_adapter.cli.supervisors.status_answer import SupervisorStatus

_MOST_SECONDS = 32503680000
"""Seconds since 1970 that a log line may have: until the year 3000."""

_STORED_BYTES = 256 << 20
"""How much a supervisor may send of stored lines."""

_SEARCH_SECONDS = 20.0
"""How long the next supervisor may take to find the plugins that are followed."""

ALL_LINES = 1_000_000


class Source:
    """The lines of one supervisor's plugins."""

    def __init__(self, supervisor: SupervisorStatus, request: dict[str, Any]) -> None:
        self.label = supervisor.label
        self._process = supervisor.identity
        self._engine = supervisor.engine_pid
        self._plugins = {plugin.title: plugin for plugin in supervisor.plugins}
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
        request = {**self._request, "lines": ALL_LINES}
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

    def receive_or_fail(self, is_ambiguous: bool) -> list[tuple[LogLine, int]]:
        """Do what :meth:`receive` does; print an error, after which no more comes."""
        try:
            return self.receive(is_ambiguous)
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

    def receive(self, is_ambiguous: bool) -> list[tuple[LogLine, int]]:
        """Return the lines that have arrived, each with the number of lines missed before it.

        Args:
            is_ambiguous: Whether there are other sources.

        Raises:
            SupervisorError: The data is not an answer.
        """
        lines: list[tuple[LogLine, int]] = []
        for message in self.connection.receive():
            if self.expected is None:
                count = check_answer(message).get("lines")
                self.expected = count if isinstance(count, int) else 0
                continue
            try:
                line = self._line(message, is_ambiguous)
                missed = int(message.get("skipped", 0))
                valid = 0 <= line.when < _MOST_SECONDS
            except (KeyError, TypeError, ValueError):
                valid = False
            if not valid:
                text = f"{self.label}: the supervisor sent a message that is no log line"
                raise SupervisorError(text)
            self._succeeds = False  # the next successor is another one
            self.expected = max(self.expected - 1 - missed, 0)
            lines.append((line, missed))
            self.stored_bytes += len(line.text)
        if self.expected and self.stored_bytes > _STORED_BYTES:
            raise SupervisorError(f"{self.label}: the supervisor sends stored lines without end")
        return lines

    def _line(self, message: Mapping[str, Any], is_ambiguous: bool) -> LogLine:
        title = printable(str(message["name"]))
        plugin = self._plugins.get(title)
        return LogLine(
            when=float(message["time"]),
            process=self._process,
            plugin=title,
            level=int(message["level"]),
            text=str(message["text"]),
            file=os.path.basename(plugin.path) if plugin else title,
            pid=(plugin and plugin.pid) or 0,
            engine=self._engine,
            is_ambiguous=is_ambiguous,
        )
