# SPDX-License-Identifier: Apache-2.0
"""The version of this package, for every room, and whether it is still the installed one."""

from __future__ import annotations

__version__ = "0.1.0"

VERSION_DIFFERS_CODE = 93
"""Exit code of a bootstrap whose engine runs another version of this package."""


def installed_version() -> str | None:
    """Return the version in the files of this package as they are now; None if there are none."""
    try:
        with open(__file__, encoding="utf-8") as file:
            lines = [line for line in file if line.startswith("__version__ = ")]
    except (OSError, ValueError):
        return None
    return lines[0].split('"')[1] if lines and lines[0].count('"') == 2 else None


def why_versions_differ(running: str, installed: str | None) -> str | None:
    """Return why an engine cannot use the package that is installed now, in one line.

    Args:
        running: The version that the engine and its supervisor have loaded.
        installed: The version in the package's files; None if it was removed.

    Returns:
        None if they are the same.
    """
    if running == installed:
        return None
    what = f"this engine runs lmcache-plugin-adapter {running}, but "
    if installed is None:
        return what + "it is not installed any more; install it again"
    return what + f"{installed} is installed now; restart the engine to use it"
