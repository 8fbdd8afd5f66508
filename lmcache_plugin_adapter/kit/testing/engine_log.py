"""Read the log of a stand-in engine: a plugin's lines, and the supervisor's lines about it."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_RECORD = re.compile(
    r"\[[^\]]*\] LMCache (?P<level>[A-Z]+): \[(?P<name>.*?)\] (?P<text>.*) "
    r"\((?P<file>[^()]*):(?P<pid>\d+):lmcache_plugin_adapter\.[\w.]+\)",
    re.DOTALL,
)
_SUPERVISOR = "supervisor.py"
_STARTED = re.compile(r"Started, pid (\d+)")
_ENDED = re.compile(r"(?:exited with code (?P<code>\d+)|killed by (?P<signal>\w+))", re.IGNORECASE)


class Line(NamedTuple):
    """A line that a plugin has printed."""

    level: str
    """``debug``, ``info``, ``warning``, ``error`` or ``critical``."""
    text: str
    """The line without the mark of its level."""


class EngineLog:
    """The log of one engine, read for one plugin.

    Args:
        path: The log file.
        name: The plugin's name.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self._name = name

    def text(self) -> str:
        """Return the whole log."""
        return self.path.read_bytes().decode(errors="backslashreplace")

    def lines(self, *, supervisor: bool) -> list[Line]:
        """Return the supervisor's lines about the plugin, or the plugin's own lines."""
        complete, _, _ = self.text().rpartition("\n")
        records = (_RECORD.fullmatch(line) for line in complete.split("\n"))
        return [
            Line(found["level"].lower(), found["text"])
            for found in records
            if found is not None
            and found["name"] == self._name
            and (found["file"] == _SUPERVISOR) is supervisor
        ]

    def pid(self) -> int | None:
        """Return the pid of the plugin's last start, or None."""
        reports = self.lines(supervisor=True)
        found = [match[1] for line in reports if (match := _STARTED.match(line.text))]
        return int(found[-1]) if found else None

    def returncode(self) -> int | None:
        """Return the exit code after the last start, or minus a signal's number, or None."""
        code: int | None = None
        for line in self.lines(supervisor=True):
            if _STARTED.match(line.text):
                code = None
            elif match := _ENDED.match(line.text.removeprefix("Stopped: ")):
                code = int(match["code"]) if match["code"] else -signal.Signals[match["signal"]]
        return code

    def supervisors(self) -> set[int]:
        """Return the pids of all supervisors in the log."""
        return {int(pid) for pid in re.findall(r"\(supervisor\.py:(\d+):", self.text())}
