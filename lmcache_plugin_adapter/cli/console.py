"""How the commands talk: to stdout for what was asked for, to stderr for what is wrong."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .inputs import UsageError

USAGE_STATUS = 2
"""Exit status when the command line or the configuration cannot be used."""


def say(text: str) -> None:
    """Print to stdout, which may be a pipe that nobody reads any more."""
    try:
        print(text, flush=True)
    except OSError:
        # Python flushes once more at exit, and must not fail there again.
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


def complain(level: str, text: str) -> None:
    """Print one line to stderr, such as ``warning: …``."""
    print(f"{level}: {text}", file=sys.stderr)


def fail(error: UsageError) -> int:
    """Say why the command cannot be carried out; return its exit status."""
    complain("error", str(error))
    return USAGE_STATUS


def listed(words: Sequence[str]) -> str:
    """Return ``a``, ``a and b``, ``a, b and c``."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
