# SPDX-License-Identifier: Apache-2.0
"""Check again, just before a start, that nobody else can change what a plugin runs.

Runs in the child that becomes the plugin: a hung file system holds up nothing else,
and the memory that the check takes goes with the exec.
"""

from __future__ import annotations

from lmcache_plugin_adapter.messages.wording import error_reason
from lmcache_plugin_adapter.planner.permissions import PermissionRules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def why_refused(paths: Sequence[str], shares: str | None, uid: int | None) -> str | None:
    """Return why a plugin must not start any more, or None.

    Args:
        paths: What it runs; its own file first.
        shares: The interpreter that imports from the file's directory, or None.
        uid: The user that it runs as; None for the engine's.
    """
    rules = PermissionRules(uid=uid)
    try:
        found = [exposure for path in paths for exposure in rules.check(path)]
        if shares is not None:
            found += rules.check_own_directory(paths[0], shares)
    except FileNotFoundError:
        return None  # its interpreter logs that
    except OSError as error:
        return f"it cannot be inspected: {error_reason(error)}"
    return "; ".join(dict.fromkeys(each.text for each in found if each.refuse)) or None
