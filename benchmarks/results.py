# SPDX-License-Identifier: Apache-2.0
"""What was measured, kept as JSON: a later run replaces the rows that it measures."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from .figures import Samples
from .installation import ROOT
from .processes import MARK

PEERS = ("lmcache", "supervisor", "circus", "honcho")


class Results:
    """A directory's results.

    Args:
        directory: Made if it is not there.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self._path = directory / "results.json"
        self._rows: dict[str, dict[str, Any]] = {}
        if self._path.exists():
            self._rows = json.loads(self._path.read_text())["rows"]

    def __contains__(self, row: str) -> bool:
        return row in self._rows

    def keep(self, row: str, repeats: list[dict[str, float]], command: str, took: float) -> None:
        """Keep a row's repeats.

        Args:
            row: Its name.
            repeats: What each measured.
            command: What measured it.
            took: Seconds.
        """
        self._rows[row] = {
            "measured": dt.datetime.now(tz=dt.timezone.utc).isoformat(timespec="minutes"),
            "commit": commit(),
            "machine": machine(),
            "load": os.getloadavg()[1],
            "command": command,
            "seconds": round(took, 1),
            "repeats": repeats,
        }
        self._path.write_text(json.dumps({"mark": MARK, "rows": self._rows}, indent=1) + "\n")

    def samples(self, row: str) -> Samples:
        """Return what was measured of a row."""
        return Samples(self._rows[row]["repeats"])

    def about(self, row: str) -> dict[str, Any]:
        """Return how, when and where a row was measured."""
        return self._rows[row]


def commit() -> str:
    """Return the checkout's commit, with a plus where it was changed since; empty: unknown."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def machine() -> str:
    """Return what the figures were measured on."""
    cores = len(os.sched_getaffinity(0))
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PEERS)
    return (
        f"{_processor()}, {cores} cores, {pages / (1 << 30):.0f} GB; "
        f"Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}; "
        f"{versions}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
