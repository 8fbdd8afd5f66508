"""Where editable installations have their modules, as far as it can be read without running code.

Most leave a path file, which has put its directory on ``sys.path`` already.
setuptools leaves a module instead, which finds others by a table in its source.
"""

from __future__ import annotations

import os

from .installed_packages import read_bounded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_START = "MAPPING"
_MAX_BYTES = 1 << 18


def read_finders(files: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Read the tables of setuptools' finders.

    Args:
        files: Their source files.

    Returns:
        By a module's full name: its path without ending, and the file that
        says so. What cannot be read is left out.
    """
    import ast  # only an installation of this kind pays for it

    found: dict[str, tuple[str, str]] = {}
    for file in files:
        try:
            source = read_bounded(file, _MAX_BYTES).decode()
            lines = [line for line in source.splitlines() if line.startswith(_START)]
            table = ast.literal_eval(lines[0].partition("=")[2].strip())
            for module, path in table.items():
                if isinstance(module, str) and isinstance(path, str) and os.path.isabs(path):
                    found.setdefault(module, (path, file))
        except (OSError, ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        except (IndexError, AttributeError, TypeError):  # no such line, or no table in it
            continue
    return found
