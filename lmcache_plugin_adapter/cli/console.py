# SPDX-License-Identifier: Apache-2.0
"""Print what commands report: results to stdout, problems to stderr; name the exit statuses."""

from __future__ import annotations

import contextlib
import enum
import io
import os
import sys
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.messages.problem import quoted
from lmcache_plugin_adapter.messages.wording import uncapitalized

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

    from rich.console import Console

    from .inputs import UsageError

_UNLIMITED = 100_000  # columns


class ExitStatus(enum.IntEnum):
    """Exit status of the commands; docs/reference/exit-codes.md has the details."""

    OK = 0
    FAILED = 1
    USAGE = 2
    """The command line or the configuration cannot be used."""
    INTERRUPTED = 130
    """Ctrl-C, as shells report it."""


class StdoutError(Exception):
    """Stdout cannot be written, for another reason than that its reader has closed the pipe."""


class _Stdout(io.FileIO):
    """The raw stream of stdout: its errors differ from those of everything else."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StdoutError(f"cannot write to stdout: {error.strerror}") from None


def open_standard_streams() -> None:
    """Make stdout report its errors, and open what the caller has closed.

    Files and sockets would otherwise get the numbers of closed streams.
    """
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    while null < 3:  # a closed stdout fails with each write, as it should
        os.set_inheritable(null, True)
        if null == 2:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 - for good
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.close(null)
    old = sys.stdout
    if old is None or (isinstance(old, io.TextIOWrapper) and _descriptor(old) == 1):
        sys.stdout = io.TextIOWrapper(
            io.BufferedWriter(_Stdout(1, "w", closefd=False)),
            encoding=None if old is None else old.encoding,
            errors="backslashreplace",  # file names may hold what the terminal's encoding lacks
            line_buffering=old is not None and old.line_buffering,
        )


def _descriptor(stream: io.TextIOWrapper) -> int:
    try:
        return stream.fileno()
    except (OSError, ValueError):
        return -1


def exit_with(command: Callable[[], object]) -> NoReturn:
    """Run a command and exit with its status, or with one line for an error of the system.

    A reader of stdout that has closed the pipe is no error.
    """
    status: object = ExitStatus.OK
    try:
        try:
            command()
        except SystemExit as end:
            status = end.code
        sys.stdout.flush()
    except BrokenPipeError:
        discard_stdout()
    except (StdoutError, OSError) as error:
        discard_stdout()
        file = getattr(error, "filename", None)
        text = getattr(error, "strerror", None) or str(error)
        print_problem("error", uncapitalized(text) + (f": {quoted(str(file))}" if file else ""))
        status = ExitStatus.FAILED
    raise SystemExit(status)


def print_line(text: str) -> None:
    """Print to stdout; ignore that the reader of the pipe has closed it."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        discard_stdout()


def print_progress(text: str) -> None:
    """Print to stdout; a command that must go on reports an error of stdout and does."""
    try:
        print_line(text)
    except StdoutError as error:
        print_problem("error", str(error))
        discard_stdout()


def discard_stdout() -> None:
    """Point stdout to ``/dev/null`` after an error: Python flushes once more at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def print_problem(level: str, text: str) -> None:
    """Print one line to stderr, such as ``warning: …``."""
    with contextlib.suppress(OSError):  # stderr is full or closed: the exit status remains
        print(f"{level}: {text}", file=sys.stderr, flush=True)


def fail(error: UsageError) -> int:
    """Print why the command cannot be executed; return its exit status."""
    print_problem("error", str(error))
    return ExitStatus.USAGE


def listed(words: Sequence[str]) -> str:
    """Return ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def printable(text: str) -> str:
    """Return text on one line, with control characters and undecodable bytes escaped."""
    return quoted(text)[1:-1]


def rich_console() -> Console:
    """Return a rich console for stdout.

    On a terminal, text is as wide as the terminal; elsewhere each line stays one
    line, for grep and for logs. Colours follow rich's rules, ``NO_COLOR`` included.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _UNLIMITED
    return Console(width=width, highlight=False, emoji=False, markup=False)


def captured(*parts: object, is_unlimited: bool = False) -> str:
    """Return what a rich console prints of ``parts``, without trailing spaces.

    Args:
        parts: What to print.
        is_unlimited: Leave lines as long as they are, also on a terminal.
    """
    console = rich_console()
    if is_unlimited:
        console.width = _UNLIMITED
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
