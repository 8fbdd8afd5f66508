# SPDX-License-Identifier: Apache-2.0
"""The search for plugins, in a child, so that a hung file system does not block the supervisor.

Runs in the supervisor (`loader`, `search`) and in its short-lived child (`child`).
Only `child` imports `planner` and `configuration`.
"""
