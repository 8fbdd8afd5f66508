# SPDX-License-Identifier: Apache-2.0
"""Wording of counts, durations, error reasons and exit reasons."""

from __future__ import annotations

import signal


def counted(count: int, noun: str) -> str:
    """Return a number of things in words: ``1 record``, ``1,234 records``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def lost(count: int, noun: str) -> str:
    """Return a loss in words: ``1 byte is lost``, ``20 bytes are lost``."""
    return f"{counted(count, noun)} {'is' if count == 1 else 'are'} lost"


def count_processes(count: int) -> str:
    """Return a number of processes in words."""
    return "1 process" if count == 1 else f"{count} processes"


def count_lines(count: int) -> str:
    """Return a number of lines in words."""
    return counted(count, "line")


def span(seconds: float) -> str:
    """Return a duration in words."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def capitalized(text: str) -> str:
    """Return a text as the start of a log line."""
    return text[:1].upper() + text[1:]


def uncapitalized(text: str) -> str:
    """Return a sentence so that it continues another one."""
    return text[:1].lower() + text[1:]


def error_reason(error: OSError | ValueError) -> str:
    """Return why a system call failed, as a sentence continues: ``permission denied``."""
    return uncapitalized(getattr(error, "strerror", None) or str(error))


def decodable(text: str) -> str:
    r"""Return text that every encoder accepts: undecodable bytes become ``\xNN``."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def signal_name(number: int) -> str:
    """Return a signal's name, such as ``SIGKILL``, or ``signal 77``."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def size(count: int) -> str:
    """Return an amount of memory in MiB or GiB."""
    mebi = count / 1_048_576
    return f"{mebi / 1_024:.1f} GiB" if mebi >= 1_000 else f"{mebi:.1f} MiB"


def exit_text(code: int, asked: bool = False, out_of_memory: bool = False) -> str:
    """Return the exit reason of a process in words.

    Args:
        code: The exit code, or the negative number of the signal.
        asked: The process was being stopped, so that SIGKILL needs no explanation.
        out_of_memory: The kernel has killed a process because memory ran out.
    """
    killed = code == -signal.SIGKILL
    if out_of_memory and not killed:
        return f"{exit_text(code, asked)} (the kernel's OOM killer had killed another process)"
    if code >= 0:
        return f"Exited with code {code}"
    text = f"Killed by {signal_name(-code)}"
    if killed and out_of_memory:
        text += " from the kernel's OOM killer (out of memory)"
    elif killed and not asked:
        text += " (out of memory? see the kernel log)"
    return text


def raised_at(error: BaseException) -> str:
    """Return where an exception was raised: ``file.py:12 (function)``."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "?"
    code = trace.tb_frame.f_code
    return f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} ({code.co_name})"
