"""Whether PID 1 of this container is a server and no init, and what that means for plugins."""

from __future__ import annotations

import os

from .procfs import command_of

ADVICE = (
    "the server is PID 1 of this container: when it exits, the kernel ends plugins without a "
    "grace period; use 'docker run --init', tini or shareProcessNamespace, and a preStop hook"
)


def server_is_pid1() -> bool:
    """Tell whether PID 1 is a Python server and not an init."""
    if os.getpid() == 1:
        return True
    try:
        program = os.path.basename(os.readlink("/proc/1/exe"))
    except OSError:
        program = command_of(1).decode("utf-8", "replace")
    return program.startswith(("python", "vllm"))
