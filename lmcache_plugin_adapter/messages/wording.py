"""How the supervisor says numbers, times and ends of processes: one place, one grammar."""

from __future__ import annotations

import signal


def count_processes(count: int) -> str:
    """Say a number of processes."""
    return "1 process" if count == 1 else f"{count} processes"


def count_lines(count: int) -> str:
    """Say a number of lines."""
    return "1 line" if count == 1 else f"{count:,} lines"


def span(seconds: float) -> str:
    """Say a length of time."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def uncapitalized(text: str) -> str:
    """Return a sentence as it continues another."""
    return text[:1].lower() + text[1:]


def signal_name(number: int) -> str:
    """Return a signal's name, such as ``SIGKILL``, or ``signal 77``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def exit_text(code: int, asked: bool = False) -> str:
    """Say how a process ended.

    Args:
        code: Its exit code, or minus the signal's number.
        asked: Whether it was being stopped: then SIGKILL needs no explanation.
    """
    if code >= 0:
        return f"Exited with code {code}"
    text = f"Killed by {signal_name(-code)}"
    if -code == signal.SIGKILL and not asked:
        text += " (out of memory? the kernel log tells)"
    return text


def raised_at(error: BaseException) -> str:
    """Return where an exception was raised, as ``file.py:12 (function)``."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "?"
    code = trace.tb_frame.f_code
    return f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} ({code.co_name})"
