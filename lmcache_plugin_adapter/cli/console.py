"""Print what commands report: results to stdout, problems to stderr; name the exit statuses."""

from __future__ import annotations

import enum
import os
import sys
from typing import TYPE_CHECKING

from lmcache_plugin_adapter.messages.problem import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from .inputs import UsageError

_UNLIMITED = 100_000  # columns


class ExitStatus(enum.IntEnum):
    """Exit status of the commands; the table in docs/operations.md has the details."""

    OK = 0
    FAILED = 1
    USAGE = 2
    """The command line or the configuration cannot be used."""
    INTERRUPTED = 130
    """Ctrl-C, as shells report it."""


def print_line(text: str) -> None:
    """Print to stdout; ignore that the reader of the pipe has closed it."""
    try:
        print(text, flush=True)
    except OSError:
        discard_stdout()


def discard_stdout() -> None:
    """Point stdout to ``/dev/null`` after an error: Python flushes once more at exit."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def print_problem(level: str, text: str) -> None:
    """Print one line to stderr, such as ``warning: …``."""
    print(f"{level}: {text}", file=sys.stderr)


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


def captured(*parts: object) -> str:
    """Return what a rich console prints of ``parts``, without trailing spaces."""
    console = rich_console()
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
