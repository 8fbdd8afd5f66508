# SPDX-License-Identifier: Apache-2.0
"""Show on a terminal what stand-in engines log, in the short form."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.cli.logs.formats import LogFormat, formatter, parse_record
from lmcache_plugin_adapter.contract.log_records import wants_color

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lmcache_plugin_adapter.linux.event_loop import Loop

_READ_BYTES = 65536
_LONGEST = 1 << 20
"""A longer line is shown in pieces."""


class StandInLog:
    """A pipe that takes the place of the stand-ins' stderr.

    Args:
        loop: Reads the pipe.
        processes: The stand-ins, for the alignment of their lines.
    """

    def __init__(self, loop: Loop, processes: Iterable[str]) -> None:
        self._loop = loop
        self._reader, self.writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._reader, False)
        self._rest = b""
        expected = [(process, "") for process in processes]
        self._format = formatter(LogFormat.SHORT, wants_color(2, os.environ), expected)
        loop.watch(self._reader, self._on_data)

    def close(self) -> None:
        """Show the rest, after all stand-ins and supervisors have exited."""
        self._loop.unwatch(self._reader)
        os.close(self.writer)
        while self._read():
            pass
        if self._rest:
            self._show([self._rest])
        os.close(self._reader)

    def _on_data(self) -> None:
        self._read()

    def _read(self) -> bool:
        """Show what has arrived; return whether there was something."""
        try:
            data = os.read(self._reader, _READ_BYTES)
        except BlockingIOError:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LONGEST:
            lines.append(self._rest)
            self._rest = b""
        self._show(lines)
        return bool(data)

    def _show(self, lines: Iterable[bytes]) -> None:
        shown = []
        for raw in lines:
            text = raw.decode("utf-8", "backslashreplace")
            line = parse_record(text)
            shown.append(text if line is None else self._format(line))
        if shown:
            with contextlib.suppress(OSError):  # the terminal is gone
                print(*shown, sep="\n", file=sys.stderr, flush=True)
