"""Print lines with their level, as systemd and the supervisor read it."""

from __future__ import annotations

import sys

ERROR, WARNING, INFO, DEBUG = 3, 4, 6, 7


def debug(text: object) -> None:
    """Print what only debugging needs."""
    emit(DEBUG, text)


def info(text: object) -> None:
    """Print what is of interest."""
    emit(INFO, text)


def warning(text: object) -> None:
    """Print what somebody should know of."""
    emit(WARNING, text)


def error(text: object) -> None:
    """Print what somebody should do something about."""
    emit(ERROR, text)


def emit(level: int, text: object) -> None:
    """Print ``text``, each line of it marked with ``level``, at once and in one write.

    Never raises: a log that cannot be written must not end what is logged.
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
        pass  # the supervisor's end of the pipe is gone, or stdout was closed
