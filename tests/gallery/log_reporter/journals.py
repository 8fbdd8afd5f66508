# SPDX-License-Identifier: Apache-2.0
"""A real journal: ``systemd-journal-remote`` writes it, and ``journalctl`` reads it."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest
from servers import debian_binary, debian_environment

PACKAGE = "systemd-journal-remote"
START = 1795331216_000000
"""Microseconds since 1970 of the journal's beginning."""


class WrittenJournal:
    """A directory with a journal that grows.

    Args:
        directory: Its place.
    """

    def __init__(self, directory: Path) -> None:
        writer = debian_binary(PACKAGE)
        self.environment = debian_environment(PACKAGE)
        tried = subprocess.run(
            [writer, "--version"],
            env=self.environment,
            check=False,
            capture_output=True,
            text=True,
        )
        if tried.returncode:
            pytest.skip(f"{PACKAGE} does not run here: {tried.stderr.strip()}")
        self.directory = directory / "journal"
        self.directory.mkdir()
        self.journalctl = directory / "bin" / "journalctl"
        self.journalctl.parent.mkdir()
        libraries = self.environment["LD_LIBRARY_PATH"]
        program = debian_binary(PACKAGE, "journalctl")
        self.journalctl.write_text(
            f'#!/bin/sh\nLD_LIBRARY_PATH="{libraries}" exec "{program}" "$@"\n'
        )
        self.journalctl.chmod(0o755)
        self._boot = 1
        self._count = 0
        self._writer = subprocess.Popen(
            [writer, f"--output={self.directory}/a.journal", "--split-mode=none", "-"],
            env=self.environment,
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def log(self, *messages: str | bytes, **fields: str) -> None:
        """Add an entry for each message; fields with a leading ``x`` are systemd's own."""
        pipe = self._writer.stdin
        assert pipe is not None
        for message in messages:
            self._count += 1
            entry: dict[str, str | bytes] = {
                "__REALTIME_TIMESTAMP": str(START + self._count),
                "__MONOTONIC_TIMESTAMP": str(self._count),
                "_BOOT_ID": f"{self._boot:032x}",
                "PRIORITY": "6",
                "SYSLOG_IDENTIFIER": "vllm",
                "_PID": "42",
                "_SYSTEMD_UNIT": "vllm.service",
                "MESSAGE": message,
                **{name.removeprefix("x"): value for name, value in fields.items()},
            }
            pipe.write(b"".join(_field(*one) for one in entry.items()) + b"\n")
        pipe.flush()

    def reboot(self) -> None:
        """Let the next entries be of another boot."""
        self._boot += 1

    def close(self) -> None:
        """End the writer."""
        with contextlib.suppress(BrokenPipeError):
            self._writer.communicate(timeout=60)


def _field(name: str, value: str | bytes) -> bytes:
    """Return a field in systemd's export format."""
    raw = value.encode() if isinstance(value, str) else value
    if raw.isascii() and raw.decode().isprintable():
        return name.encode() + b"=" + raw + b"\n"
    return name.encode() + b"\n" + len(raw).to_bytes(8, "little") + raw + b"\n"
