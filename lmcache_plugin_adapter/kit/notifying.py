# SPDX-License-Identifier: Apache-2.0
"""Report readiness, a status text and signs of life (setting ``notify``; sd_notify(3))."""

from __future__ import annotations

import os

from lmcache_plugin_adapter.contract.variables import NOTIFY_SOCKET, WATCHDOG_PID, WATCHDOG_USEC


def ready() -> bool:
    """Report that the plugin is ready.

    Returns:
        Whether there was somebody to report it to: False without the setting ``notify``.
    """
    return notify("READY=1")


def status(text: str) -> bool:
    """Report what the plugin does now, in one line, for ``lmcache-plugins status``.

    Returns:
        As :func:`ready`.
    """
    return notify(f"STATUS={' '.join(text.split())}")


def notify(message: str) -> bool:
    """Send a message of sd_notify(3), such as ``STOPPING=1``.

    Returns:
        As :func:`ready`.
    """
    address = os.environ.get(NOTIFY_SOCKET)
    if not address:
        return False
    import socket  # late: it takes some milliseconds to load

    if address.startswith("@"):
        address = f"\0{address[1:]}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto(message.encode("utf-8", "backslashreplace"), address)
    except OSError:
        return False  # the supervisor has gone: the plugin ends with it
    return True


def watchdog_seconds() -> float | None:
    """Return how often the watchdog expects a sign of life of this process; None if never."""
    microseconds = os.environ.get(WATCHDOG_USEC, "")
    pid = os.environ.get(WATCHDOG_PID)
    if not microseconds.isdecimal() or pid not in (None, str(os.getpid())):
        return None
    return int(microseconds) / 1_000_000 or None
