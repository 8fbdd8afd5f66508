# SPDX-License-Identifier: Apache-2.0
"""Search programs on PATH, and distinguish Pythons."""

from __future__ import annotations

import os
import re
import stat

from lmcache_plugin_adapter.messages.problem import quoted
from lmcache_plugin_adapter.messages.wording import error_reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PYTHON = re.compile(rb"python(\d+(\.\d+)?)?")

_IMPORTERS = re.compile(rb"(python|pypy|node|nodejs|php|uv|pipx)[\d.]*t?")
"""Programs that import what stands beside the script that they run."""

_ISOLATED = rb"-[a-zA-Z]*[IP]"


def find_program(name: bytes, path: bytes) -> bytes | None:
    """Look a program up as a shell does.

    Args:
        name: A name to look up in ``path``, or a path, relative to the working
            directory.
        path: Directories separated by ``:``. An empty one is the working directory.

    Returns:
        The absolute path, with links kept, or None if no executable file has
        this name.
    """
    directories = [b""] if b"/" in name else path.split(b":")
    for directory in directories:
        candidate = os.path.join(directory, name)
        try:
            if not os.path.isabs(candidate):
                candidate = os.path.join(os.getcwdb(), candidate)
            if stat.S_ISREG(os.stat(candidate).st_mode) and os.access(candidate, os.X_OK):
                return candidate
        except (OSError, ValueError):
            continue
    return None


def why_missing(name: bytes) -> str:
    """Return why :func:`find_program` did not find an interpreter, for a message."""
    shown = quoted(os.fsdecode(name))
    if b"/" not in name:
        return f"its interpreter {shown} is not on PATH"
    try:
        mode = os.stat(name).st_mode
    except OSError as error:
        if error.errno is not None and not isinstance(error, FileNotFoundError):
            return f"its interpreter {shown} cannot be used: {error_reason(error)}"
        return f"its interpreter {shown} does not exist"
    if stat.S_ISDIR(mode):
        return f"its interpreter {shown} is a directory"
    return f"its interpreter {shown} may not be executed"


def imports_from_own_directory(argv: Sequence[bytes], script: bytes) -> str | None:
    """Return the name of the program that imports from the script's directory, or None.

    Args:
        argv: The command.
        script: The path of the script, one of its words.
    """
    options = argv[: argv.index(script)] if script in argv else argv
    for word in options:
        name = os.path.basename(word)
        if _IMPORTERS.fullmatch(name):
            isolated = name.startswith((b"python", b"pypy")) and any(
                re.fullmatch(_ISOLATED, option) for option in options
            )
            return None if isolated else os.fsdecode(name)
    return "Python" if options and script.endswith(b".py") else None


def is_other_python(program: bytes, python: bytes) -> bool:
    """Return whether ``program`` is a Python, but not ``python``."""
    if _PYTHON.fullmatch(os.path.basename(program)) is None:
        return False
    return _python_home(program) != _python_home(python)


def _python_home(program: bytes) -> tuple[bytes, bytes | None]:
    """Return what identifies a Python: the program, and its virtual environment if any."""
    directory = os.path.dirname(program)
    for home in (directory, os.path.dirname(directory)):
        if os.path.exists(os.path.join(home, b"pyvenv.cfg")):
            return os.path.realpath(program), os.path.realpath(home)
    return os.path.realpath(program), None
