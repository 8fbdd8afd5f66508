# SPDX-License-Identifier: Apache-2.0
"""Print lines with their level, in the format that systemd and the supervisor read."""

from __future__ import annotations

import sys

ERROR, WARNING, INFO, DEBUG = 3, 4, 6, 7


def debug(text: object) -> None:
    """Print a line for debugging."""
    emit(DEBUG, text)


def info(text: object) -> None:
    """Print a line of information."""
    emit(INFO, text)


def warning(text: object) -> None:
    """Print a line about a possible problem."""
    emit(WARNING, text)


def error(text: object) -> None:
    """Print a line about a problem that needs action."""
    emit(ERROR, text)


def emit(level: int, text: object) -> None:
    """Print ``text`` at once and in one write, with the mark of ``level`` on each line.

    Never raise: a failing log must not stop the plugin.
    """
    mark = f"<{level}>"
    lines = str(text).splitlines() or [""]
    out = "".join(f"{mark}{line}\n" for line in lines)
    stream = sys.stdout
    if stream is None:
        return
    try:
        try:
            stream.write(out)
        except UnicodeEncodeError:
            encoding = getattr(stream, "encoding", None) or "ascii"
            stream.write(out.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (OSError, ValueError):
        pass  # the supervisor closed the pipe, or stdout is closed
