# SPDX-License-Identifier: Apache-2.0
"""Whether PID 1 of this container is an init, and what it means for plugins if not."""

from __future__ import annotations

import os

INITS = frozenset(
    ("systemd", "init", "tini", "dumb-init", "docker-init", "catatonit", "s6-svscan", "pause")
)
"""Programs made to be PID 1: they outlive the server and reap orphaned processes."""

ADVICE = (
    "the server is PID 1 of this container: when it exits, the kernel ends plugins without a "
    "grace period; use 'docker run --init', tini or shareProcessNamespace, and a preStop hook"
)


def name_of_pid1(proc: str = "/proc") -> str:
    """Return the kernel's name of PID 1; empty if unknown.

    Args:
        proc: The mount point of procfs.
    """
    try:
        with open(f"{proc}/1/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def server_is_pid1() -> bool:
    """Return whether PID 1 is a Python server and not an init."""
    if os.getpid() == 1:
        return True
    try:
        program = os.path.basename(os.readlink("/proc/1/exe"))
    except OSError:
        program = name_of_pid1()
    return program.startswith(("python", "vllm"))
