# SPDX-License-Identifier: Apache-2.0
"""The gallery: ready plugins for heartbeats, logs, metrics and alerts.

Runs in a process of its own for each plugin, started by the supervisor. Imports the kit, the rooms
below it and the libraries of the extra ``gallery``; no other room imports the gallery.
"""

from __future__ import annotations

import sys

# httpx imports its own command line, with click, rich and pygments: 5 MB that no plugin uses.
# It has a fallback for an environment without them.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
