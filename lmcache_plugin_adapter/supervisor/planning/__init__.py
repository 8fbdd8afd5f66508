"""The search for plugins, in a child, so that a hung file system does not block the supervisor.

`loader` and `search` run in the supervisor, `child` in its short-lived child.
Only `child` imports `planner` and `configuration`.
"""
