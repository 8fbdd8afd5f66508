# SPDX-License-Identifier: Apache-2.0
"""Read the log of a stand-in engine: a plugin's lines, and the supervisor's lines about it."""

from __future__ import annotations

import re
import signal
from typing import NamedTuple

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


def read_lines(log: str, plugin: str, *, supervisor: bool) -> list[Line]:
    """Return the supervisor's lines about a plugin, or the plugin's own lines."""
    complete, _, _ = log.rpartition("\n")
    records = (_RECORD.fullmatch(line) for line in complete.split("\n"))
    return [
        Line(found["level"].lower(), found["text"])
        for found in records
        if found is not None
        and found["name"] == plugin
        and (found["file"] == _SUPERVISOR) is supervisor
    ]


def last_pid(reports: list[Line]) -> int | None:
    """Return the pid in the supervisor's last report of a start, or None."""
    found = [match[1] for line in reports if (match := _STARTED.match(line.text))]
    return int(found[-1]) if found else None


def last_exit(reports: list[Line]) -> int | None:
    """Return the exit code after the last start, or minus a signal's number; None: it runs."""
    code: int | None = None
    for line in reports:
        if _STARTED.match(line.text):
            code = None
        elif match := _ENDED.match(line.text.removeprefix("Stopped: ")):
            code = int(match["code"]) if match["code"] else -signal.Signals[match["signal"]]
    return code


def supervisors(log: str) -> set[int]:
    """Return the pids of all supervisors in a log."""
    return {int(pid) for pid in re.findall(r"\(supervisor\.py:(\d+):", log)}
