# SPDX-License-Identifier: Apache-2.0
"""Which files LMCache's own launcher runs in a process, to report where this package differs.

Pure. ``docs/plugin-authors/contract.md`` has the table of differences; the contract ring compares
this rule with LMCache's.
"""

from __future__ import annotations

import os.path

from lmcache_plugin_adapter.contract.identity import ALL_ROLES, Role
from lmcache_plugin_adapter.planner.file_names import LMCACHE_EXTENSIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lmcache_plugin_adapter.contract.identity import ProcessIdentity


def lmcache_runs(file_name: str, identity: ProcessIdentity, *, has_engine: bool = False) -> bool:
    """Return whether LMCache's launcher (0.3.4 to 0.5.6) runs a file in a process.

    Args:
        file_name: The last part of the path.
        identity: The process.
        has_engine: The scheduler has an LMCache engine, as with
            ``enable_scheduler_bypass_lookup``, and with it the id 0.
    """
    if not file_name.endswith(LMCACHE_EXTENSIONS):
        return False
    role, *rest = os.path.splitext(file_name)[0].lower().split("_")
    if not rest or identity.role is None or identity.role is Role.SERVER:
        return True
    if role not in (ALL_ROLES, identity.role.value):
        return False
    if len(rest) < 2 or not rest[0].isdecimal():
        return True
    own = 0 if identity.role is Role.SCHEDULER and has_engine else identity.worker_id
    return int(rest[0]) == own
