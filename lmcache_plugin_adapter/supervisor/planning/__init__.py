# SPDX-License-Identifier: Apache-2.0
"""The search for plugins, in a child, so that a hung file system does not block the supervisor.

Runs in the supervisor (`loader`, `search`, `auto_reload`) and, the rest, in its short-lived child.
Only `child` and `user_files` import `planner`, and only `child` imports `configuration`.
"""
